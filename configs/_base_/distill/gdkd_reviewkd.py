_base_ = ['gdkd.py', 'reviewkd.py']
distill = dict(review={{_base_.review}})
