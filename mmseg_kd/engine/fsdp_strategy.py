"""FSDP that resumes."""
import weakref

from mmengine._strategy import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmseg_kd.registry import STRATEGIES

__all__ = ['ResumableFSDPStrategy']


@STRATEGIES.register_module()
class ResumableFSDPStrategy(FSDPStrategy):
    """mmengine's ``FSDPStrategy``, whose ``--resume`` fails beside torch 2.1 and newer.

    torch changed the order of the arguments with which an optimizer's state is brought into shards. What a distilled
    model has only for training is gathered and spread as well. ``tools/train.py`` puts this strategy in the place of
    mmengine's.
    """

    def _wrap_model(self, model: nn.Module) -> FullyShardedDataParallel | None:
        wrapped = super()._wrap_model(model)
        if hasattr(model, 'train_only_state'):
            model.sharded_in = weakref.ref(wrapped)
        return wrapped

    def resume(self, filename: str, **kwargs) -> dict:
        """mmengine's, and what exists only for training, which must be written while the parameters are whole."""
        checkpoint = super().resume(filename, **kwargs)
        saved = checkpoint.get('message_hub', {}).get('runtime_info', {}).get('train_only_state')
        if saved:
            with FullyShardedDataParallel.summon_full_params(self.model, writeback=True):
                self.model.module.load_train_only_state(saved)
        return checkpoint

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what ``optim_state_dict`` returned, in parts or whole."""
        optimizer = self.optim_wrapper.optimizer
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict))
