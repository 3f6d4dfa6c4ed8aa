# CUB-200-2011 as CUB_200_2011.tgz unpacks it: images/, images.txt, image_class_labels.txt, train_test_split.txt.
_base_ = ['imagenet_bs64.py']
dataset_type = 'CUB'
data_root = 'data/CUB_200_2011'
data_preprocessor = dict(num_classes=200)
train_dataloader = dict(num_workers=4, dataset=dict(type=dataset_type, data_root=data_root, split='train'))
val_dataloader = dict(num_workers=4, dataset=dict(type=dataset_type, data_root=data_root, split='test'))
test_dataloader = val_dataloader
