"""Training: the LightningModule, its callbacks, the Trainer, resume and preemption."""
