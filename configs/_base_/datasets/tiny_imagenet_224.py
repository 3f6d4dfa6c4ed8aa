# Tiny-ImageNet as http://cs231n.stanford.edu/tiny-imagenet-200.zip unpacks it. The networks come from ImageNet and see
# pictures of its size: 64 pixels become 224.
_base_ = ['imagenet_bs64.py']
dataset_type = 'mmseg_kd.TinyImageNet'
data_root = 'data/tiny-imagenet-200'
data_preprocessor = dict(num_classes=200)
train_dataloader = dict(num_workers=4, dataset=dict(type=dataset_type, data_root=data_root, split='train'))
val_dataloader = dict(num_workers=4, dataset=dict(type=dataset_type, data_root=data_root, split='val'))
test_dataloader = val_dataloader
