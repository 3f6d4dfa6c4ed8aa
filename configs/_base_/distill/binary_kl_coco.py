# Each class of each position as a yes or no of its own, over all positions, divided by those with an object.
distill = dict(binary_kl=dict(loss=dict(type='mmseg_kd.BinaryKLLoss', temperature=1.), on='logits'))
