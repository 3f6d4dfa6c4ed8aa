import os

# Two torch processes on two cores spin against each other (16 times slower) unless idle OpenMP threads sleep.
# Both must be set before torch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ.setdefault('MPLBACKEND', 'Agg')
