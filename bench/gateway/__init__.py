"""What does the gateway itself cost, when the workers behind it answer at once?"""
