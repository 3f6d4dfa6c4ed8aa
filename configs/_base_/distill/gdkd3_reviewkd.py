_base_ = ['gdkd3.py', 'reviewkd.py']
distill = dict(review={{_base_.review}})
