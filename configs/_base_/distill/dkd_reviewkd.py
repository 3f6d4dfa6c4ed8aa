_base_ = ['dkd.py', 'reviewkd.py']
distill = dict(review={{_base_.review}})
