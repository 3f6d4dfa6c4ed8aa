"""Distilled classifiers: mmpretrain's, and what is known of its heads. Imported when a config names one."""
