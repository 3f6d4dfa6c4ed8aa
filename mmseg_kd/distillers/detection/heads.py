"""Where an mmdet head classifies."""
from torch import nn

__all__ = ['main_branch']

# The layer whose output is a head's class scores, by the head's class.
_LAYERS = dict(RetinaHead='retina_cls', ATSSHead='atss_cls', GFLHead='gfl_cls', FCOSHead='conv_cls', BBoxHead='fc_cls')


def main_branch(head: nn.Module) -> nn.Conv2d | nn.Linear:
    """Return the layer that turns a detection head's features into its class scores.

    Args:
        head: A dense head, or an RoI head, whose box head is meant.

    Raises:
        ValueError: the scores are not those of one plain layer; the message names the head and says why.
    """
    head = getattr(head, 'bbox_head', head)
    names = [cls.__name__ for cls in type(head).__mro__]
    path, reason = next((_LAYERS[name] for name in names if name in _LAYERS), None), None
    layer = None if path is None else getattr(head, path, None)
    if isinstance(head, nn.ModuleList):
        reason = 'a cascade classifies in each of its stages'
    elif path is None:
        reason = f'of its layers none is known to give its scores; known are the heads {sorted(_LAYERS)}'
    elif not isinstance(layer, (nn.Conv2d, nn.Linear)) or type(layer).__name__.startswith('Normed'):
        reason = f'its layer `{path}` is a {type(layer).__name__}, no linear map of the features'
    if reason is not None:
        raise ValueError(f'`dual_head`: {names[0]} cannot have a second classifier: {reason}. Remove `dual_head` and '
                         "the terms with on='aux_logits', or take RetinaNet, FCOS, GFL, ATSS, Faster or Mask R-CNN.")
    return layer
