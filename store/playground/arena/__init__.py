"""The arena: two GPTs without their names answer one question, a person says which is better, and the votes become ratings.

pairing        which two meet              battles    the acts: begin, vote, keep what was said
signs          which votes do not count    standings  the ratings, computed from time to time, and their board
bradley_terry  the formula
"""
