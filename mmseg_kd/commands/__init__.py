"""What a user types: one command to distil, training from a config, and what is said on the terminal meanwhile."""

#: Methods for segmentors, as ``--method`` of ``mmseg-kd distil`` names them.
METHODS = ('kd', 'dkd', 'gdkd', 'gdkd3', 'dgkd', 'dhkd', 'cwd', 'dist', 'reviewkd')
