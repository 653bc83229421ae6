"""The journal that capture writes, the Chroma store that the refresh reads, and what is between.

    capture.py      from LangChain's callbacks to a record (used by ``langchain_uno.callbacks``)
    redaction.py    personal data and secrets out of the text before it is stored
    journal.py      append-only SQLite, all that the request path writes; database.py, migrations.py
    join.py         which feedback (and which next user turn) belongs to which answer
    conversation.py what a text tells by itself: its language, the answer that a turn follows
    filters.py      which logs may be learnt from, and why not; machine_turns.py
    store.py        the journal and its index, searched by meaning; index.py (a folder of the
                    home) or server.py (a Chroma server); vectors.py
    background.py   draining beside the app, for handlers that ask for it
    erase.py        forgetting in the journal, and keeping it forgotten
    exchange.py     import and export; containers.py reads files, readers/ the formats of rows,
                    rows.py makes records of them, repeats.py finds answers that are there already
    stats.py        what the journal holds, counted

``python -m langchain_uno.logs --help`` is the command line. Importing this package loads neither
torch nor chromadb; opening a store loads chromadb.
"""
