_base_ = ['dhkd.py', 'reviewkd.py']
distill = dict(review={{_base_.review}})
