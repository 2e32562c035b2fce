"""Own traffic as a trace that `multipick replay` reads: when each request came, its lengths, salted ids of its blocks.

In: what `decision/` knows of a request, when it is picked and when it is over. Out: JSON lines in a folder. `lines`
makes them, `files` keeps the folder bounded, `answers` guesses how long an answer was where nobody tells, `writer`
does all of it in a thread of its own. No text and no token id is ever kept.
"""
