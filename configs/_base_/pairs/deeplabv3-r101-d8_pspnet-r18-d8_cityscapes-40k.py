# The schedule of GDKD's segmentation code: 40,000 iterations of 16 pictures, SGD 0.02, decay 5e-4, poly 0.9 to 1e-4.
_base_ = ['deeplabv3-r101-d8_pspnet-r18-d8_cityscapes.py']
optim_wrapper = dict(optimizer=dict(lr=0.02, weight_decay=5e-4))
param_scheduler = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=40000, by_epoch=False)]
train_cfg = dict(max_iters=40000, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
