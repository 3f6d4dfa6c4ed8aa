# The schedule of GDKD on CUB-200-2011, for a batch of 64.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0025, momentum=0.9, weight_decay=0.001))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[40, 80], gamma=0.1)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
