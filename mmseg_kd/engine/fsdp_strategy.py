"""FSDP that resumes."""
from mmengine._strategy import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

from mmseg_kd.registry import STRATEGIES

__all__ = ['ResumableFSDPStrategy']


@STRATEGIES.register_module()
class ResumableFSDPStrategy(FSDPStrategy):
    """mmengine's ``FSDPStrategy``, whose ``--resume`` fails beside torch 2.1 and newer.

    torch changed the order of the arguments with which an optimizer's state is brought into shards. ``tools/train.py``
    puts this one in the place of mmengine's.
    """

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what ``optim_state_dict`` returned, in parts or whole."""
        optimizer = self.optim_wrapper.optimizer
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict))
