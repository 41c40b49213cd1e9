"""What training any model needs: the loop and its checkpoints. It knows no model."""
