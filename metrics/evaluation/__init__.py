"""What an evaluation is made of: answers, baselines, difficulty, protocol stamp, result and report."""
