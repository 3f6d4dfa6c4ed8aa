_base_ = ['dgkd.py', 'reviewkd.py']
distill = dict(review={{_base_.review}})
