"""Words of the made-up support desk of `trace_log`: what people ask, who did what where, and their names."""

INTENTS = ("shipping", "refund", "billing", "cancel", "login", "warranty", "complaint", "other")
OPENERS = (
    "Hi,",
    "Hello,",
    "Good morning,",
    "Hey there,",
    "Dear team,",
    "To whom it may concern,",
    "Hello again,",
    "",
)
CLOSERS = (
    "Thanks!",
    "Best regards",
    "Please help.",
    "Thank you in advance.",
    "Waiting for your reply.",
    "Cheers",
    "",
)
ASKS = {
    "shipping": ("my {p} has not arrived", "where is the {p} I ordered", "the {p} went to a wrong address"),
    "refund": ("I want my money back for the {p}", "I sent the {p} back and saw no refund", "please refund the {p}"),
    "billing": ("I was charged twice for the {p}", "the invoice for the {p} is wrong", "the {p} cost more than shown"),
    "cancel": ("please cancel my {p} plan", "I no longer need the {p} subscription", "stop the {p} order"),
    "login": ("I cannot sign in to the {p} account", "the {p} app rejects my password", "locked out of the {p} portal"),
    "warranty": ("the {p} broke after a month", "is the {p} still under warranty", "the {p} stopped working"),
    "complaint": ("nobody answers about the {p}", "the {p} support was rude", "third time I write about the {p}"),
    "other": ("do you ship the {p} abroad", "is there a manual for the {p}", "which {p} fits a small office"),
}  # fmt: skip
WHO = (
    "the courier|my neighbour|our office manager|the technician|a colleague|my daughter|the shop assistant|the landlord|"
    "the warehouse|the night shift|the reception desk|a friend of mine|the installer|our accountant|the new intern|"
    "the driver|my husband|the caretaker|the planner|the auditor|my brother|the florist|the plumber|the librarian"
).split("|")
DID = (
    "left|found|opened|dropped|returned|signed for|photographed|repaired|forgot|checked|measured|lost|weighed|painted|"
    "cleaned|moved|unplugged|labelled|hid|borrowed|scanned|replaced|carried|tested|wrapped|stored|broke|noticed"
).split("|")
WHAT = (
    "the cracked lid|a wet carton|the spare cable|two loose screws|the blue filter|an empty envelope|the customs form|"
    "a bent hinge|the second shelf|the old receipt|a torn manual|the charger|the side panel|a missing handle|the timer|"
    "a scratched display|the water tank|the fuse|the rubber seal|a burnt plug|the top drawer|the valve|the remote|"
    "a dusty fan|the brass fitting|the left wheel|a frayed belt|the keypad|the lamp cover|a sticky label"
).split("|")
WHERE = (
    "behind the garage|next to the lift|in the hallway|on the balcony|under the stairs|at the gate|near the boiler|"
    "in the loading bay|by the bicycle rack|on the third floor|at the depot|inside the cupboard|in the courtyard|"
    "beside the printer|at the border|in the cellar|over the counter|across the street|on the roof|in the van"
).split("|")
WHEN = (
    "on Monday|last Tuesday|two weeks ago|this morning|around noon|before lunch|late at night|during the storm|"
    "after the holiday|in early spring|on the weekend|yesterday evening|before the meeting|at closing time|"
    "right after delivery|while I was abroad|during the audit|at the end of May|since the update|on my birthday"
).split("|")
SYLLABLES = "ba ko ri ta lu mo ne si va do pe zu ga fi lo ra mi te no xa hy qu je wo".split()
FIRST = "Anna Mark Will Joao Priya Kenji Fatima Lars Chloe Ivan Grace Noor Pablo Yuki Hanna Omar Rose Viktor".split()
LAST = "Berg Costa Dubois Eriksen Fischer Garcia Haddad Ito Jansen Kowalski Lopez Meyer Novak Okafor Patel Rossi".split()
MAILS = ("example.com", "example.org", "mail.example.net", "post.example.co.uk")
