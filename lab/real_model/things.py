"""What the help desk's customers ask about, and in which words: data of :mod:`.desk`."""

from __future__ import annotations

__all__ = ["FRAMES", "HURRY", "NOISE", "SAID", "THINGS"]


def _split(text: str) -> list[str]:
    return [thing.strip() for thing in text.replace("\n", " ").split(",") if thing.strip()]


THINGS: dict[str, dict[str, list[str]]] = {
    "terms": {
        "logs": _split(
            "waterproofing, a groundsheet, a guy line, ripstop nylon, condensation, a base "
            "layer, merino wool, a gaiter, loft in a sleeping bag, a bivouac, hydration, "
            "altitude sickness, a contour line, magnetic north, a carabiner, a belay, "
            "frostbite, hypothermia, a ridge, a glacier, windchill, breathable fabric, a "
            "trekking pole, a crampon, an ice axe, insulation, a moraine, water purification, a "
            "portable stove, a survival blanket, a head torch, orienteering, a compass bearing, "
            "a summit, a mountain pass, fleece, down filling, a snowshoe, a wetsuit, buoyancy"
        ),
        "tests": _split(
            "a flysheet, geocaching, an avalanche, a dry bag, trail running, a windbreaker, "
            "polyester, a hammock, elevation, a thermos flask, a river crossing, a watershed, "
            "sunstroke, a whistle signal, a topographic map, a bowline knot, a harness, wild "
            "camping, a mosquito net, a cairn, humidity, a rain poncho, neoprene, a valley"
        ),
    },
    "advice": {
        "logs": _split(
            "a tent for two people, a sleeping bag for winter, a backpack for school, hiking "
            "boots for wide feet, a rain jacket for cycling, a torch for night walks, a stove "
            "for one person, a water bottle for children, a camping chair, a cool box, a pair "
            "of gloves for skiing, a hat for the sun, a map of the Lake District, a compass for "
            "beginners, a gift for a climber, a knife for camping, a rope for a boat, "
            "sunglasses for the mountains, a first aid kit, a travel pillow, a folding table, a "
            "pair of binoculars, a fishing rod for a child, a bike lock, socks for long walks, "
            "a snorkel set, a kayak for beginners, a helmet for climbing, a camping lamp, a "
            "fleece for autumn, trousers for hiking, a thermal shirt, a swimming costume, a "
            "beach towel, a skateboard for a teenager, a football, a yoga mat, running shoes "
            "for rain, a fitness watch, a sledge"
        ),
        "tests": _split(
            "a hammock for the garden, a family tent, walking poles for my mother, a paddle "
            "board, a camping mattress, a picnic basket, an insect spray, a waterproof phone "
            "case, a cycling helmet, a whistle for emergencies, a scarf for winter, a thermos "
            "for tea, a duffel bag for a weekend, ski goggles, a tennis racket, a dog coat, a "
            "wetsuit for surfing, a day pack, a camping kettle, a bird guide, sandals for the "
            "beach, a life jacket, a portable shower, a wind shield"
        ),
    },
    "stock": {
        "logs": _split(
            "blue laces, tent pegs made of steel, spare buckles, left-handed scissors, ski wax, "
            "a replacement pole, vegan gloves, size 50 boots, candles for lanterns, a red "
            "kite, gas cartridges, shoe spikes, a brass bell, waders, a roof box, a hand warmer, "
            "reflective tape, a bear canister, a child carrier, cork grips, a foot pump, knee "
            "pads, a rubber dinghy, a solar charger, a tripod, water tablets, a wool hat, zip "
            "pulls, a bum bag, canvas shoes, an axe sheath, a monocular, leather polish, elastic "
            "cord, an altimeter, a cast iron pan, freeze-dried soup, a jerrycan, a lunch box, a "
            "weather station"
        ),
        "tests": _split(
            "green webbing, a signal mirror, titanium spoons, a fire steel, a bike trailer, ice "
            "cleats, a puncture kit, an egg holder, a hiking skirt, chalk bags, a toilet tent, a "
            "pedometer, rain covers, a mess tin, a climbing magazine, a plumb line, velcro "
            "straps, a wind meter, oven gloves, a spice box"
        ),
    },
    "how-to": {
        "logs": _split(
            "wash a down jacket, waterproof a tent, clean hiking boots, dry a wet sleeping bag, "
            "patch an air mattress, set up a dome tent, pack a rucksack, light a gas stove, "
            "sharpen a camping knife, oil a bike chain, adjust a bike saddle, wax a pair of "
            "skis, fold a rain poncho, store a sleeping bag, clean a water bottle, read a trail "
            "map, tie a tarp between trees, remove mud from trousers, fix a broken zip, stop a "
            "tent from leaking, break in new boots, change a bike tyre, wash a wool sweater, "
            "clean a cool box, charge a head torch, hang a hammock, repair a fishing rod, treat "
            "a blister, build a campfire, filter water from a stream, choose a campsite, clean "
            "a camping pan, lace hiking boots, dry wet shoes, roll up a sleeping mat, get rid "
            "of a tent smell, keep food cold, inflate a kayak, put on crampons, use a compass"
        ),
        "tests": _split(
            "clean a wetsuit, fix a torn tent pole, pump up a football, wash walking socks, "
            "descale a camping kettle, wear a climbing harness, attach a bike rack, keep "
            "mosquitoes away, cook rice outdoors, pitch a tent in the wind, dry a life jacket, "
            "carry a paddle board, mend a hole in gloves, clean ski goggles, fold a camping "
            "table, protect a phone from rain, store a bike in winter, wash a fleece, warm up "
            "cold hands, tie a bowline knot"
        ),
    },
    "delivery": {
        "logs": _split(
            "my parcel, my tent, the boots that I ordered, my rucksack, the jacket from your "
            "sale, my new stove, the sleeping bag, my gift card, the torch, a birthday present, "
            "the gloves, my bike lock, the second half of my order, the replacement pole, my "
            "map"
        ),
        "tests": _split(
            "my hammock, the kayak, the trousers that I bought, my cool box, the ski goggles, "
            "my package, the spare zip, the wetsuit, my climbing rope, the family tent"
        ),
    },
    "refund": {
        "logs": _split(
            "a tent with a broken pole, boots that are too small, a torch that does not work, a "
            "jacket in the wrong colour, a leaking water bottle, a damaged stove, a rucksack "
            "with a torn strap, two left gloves, a sleeping bag with a hole, a chair that came "
            "too late, a bent trekking pole, a scratched helmet, a compass that points south, "
            "socks of the wrong size, a cracked cool box, a lamp without a battery, a hat that "
            "does not fit, a faded fleece, a snorkel that leaks, a bike lock without a key"
        ),
        "tests": _split(
            "a hammock with a loose seam, sandals that are too wide, a kettle with a dent, a "
            "mattress that loses air, a life jacket without a buckle, a racket with a crack, a "
            "dog coat that is too short, a map of the wrong county, goggles with a scratch, a "
            "poncho that lets the rain in"
        ),
    },
    "account": {
        "logs": _split(
            "change my password, change my email address, delete my account, add a second "
            "delivery address, see my old orders, unsubscribe from the newsletter, use a "
            "voucher, change my phone number, log in on a new phone, print an invoice, change "
            "the card that I pay with, reset my password, open an account, check my bonus "
            "points, turn off notifications, save my favourite products, change my user name, "
            "cancel a subscription, update my address, merge two accounts"
        ),
        "tests": _split(
            "recover a locked account, change the language of the site, remove an old card, "
            "download my receipts, turn on two-step login, share a wish list, correct my "
            "birthday, give my account to my wife, stop text messages, add a gift note"
        ),
    },
}

FRAMES: dict[str, dict[str, list[str]]] = {
    "terms": {
        "logs": [
            "What is {thing}?",
            "What does {thing} mean?",
            "Can you explain {thing}?",
            "Your site mentions {thing}. What is that?",
            "Please tell me what {thing} is.",
        ],
        "tests": [
            "I don't know the term {thing}. What is it?",
            "What is meant by {thing}?",
            "Could you explain to me what {thing} is?",
        ],
    },
    "advice": {
        "logs": [
            "Can you recommend {thing}?",
            "I am looking for {thing}. What do you suggest?",
            "I need {thing}. What would you buy?",
            "Please suggest {thing}.",
            "I want to buy {thing}. Which one is good?",
        ],
        "tests": [
            "Could you suggest {thing} for me?",
            "Which is the best choice for {thing}?",
            "I would like to buy {thing}. What do you recommend?",
        ],
    },
    "how-to": {
        "logs": [
            "How do I {thing}?",
            "What is the best way to {thing}?",
            "Can you tell me how to {thing}?",
            "I want to {thing}. How does it work?",
            "How can I {thing}?",
        ],
        "tests": [
            "Please explain how to {thing}.",
            "I have never had to {thing}. What do I do?",
            "How should I {thing}?",
        ],
    },
    "stock": {
        "logs": [
            "Do you have {thing} in stock?",
            "Do you sell {thing}?",
            "Is there {thing} in your shop at the moment?",
            "I am searching for {thing}. Do you have that?",
        ],
        "tests": [
            "Could I buy {thing} from you?",
            "Are you selling {thing} these days?",
        ],
    },
    "delivery": {
        "logs": [
            "Where is {thing}?",
            "I am still waiting for {thing}.",
            "When will {thing} arrive?",
            "Has {thing} been sent yet?",
            "I have not received {thing}.",
        ],
        "tests": [
            "Can you check where {thing} is?",
            "How long does {thing} still take?",
            "It has been two weeks. Where is {thing}?",
        ],
    },
    "refund": {
        "logs": [
            "I got {thing}. How do I get my money back?",
            "You sent me {thing}. I want a refund.",
            "I received {thing}. Can I return it?",
            "My order was {thing}. I want my money back.",
            "I am sending back {thing}. When do I get my money?",
        ],
        "tests": [
            "There was {thing} in the box. Can I have a refund?",
            "I bought {thing}. I would like the money back.",
            "What do I do to return {thing}?",
        ],
    },
    "account": {
        "logs": [
            "How do I {thing} on your site?",
            "How can I {thing} in your shop?",
            "I want to {thing}. Where do I do that on the site?",
            "What do I have to do to {thing} on your website?",
        ],
        "tests": [
            "Please tell me how to {thing} on your website.",
            "Where on your site can I {thing}?",
        ],
    },
}
"""Ways to ask, for the logs and for the tests."""

HURRY = {
    "logs": ["I am in a hurry.", "I have only a minute.", "I need to know quickly."],
    "tests": ["I don't have much time.", "It has to be quick."],
}

NOISE = [
    "Thanks!",
    "Great, thank you.",
    "ok",
    "Thanks, that helped a lot.",
    "You are great.",
    "lol",
    "What is the weather in Oslo tomorrow?",
    "Who won the match yesterday?",
    "That is not what my brother says.",
    "Hmm.",
]
"""Feedback that nothing can be learnt from."""

SAID: dict[str, tuple[str, ...]] = {
    "one sentence": (
        "Too long, one short sentence is enough.",
        "Please answer in one short sentence.",
        "Just one sentence, please.",
        "Shorter! One sentence.",
        "I only need a single short sentence.",
        "That is far too much text, one sentence will do.",
        "Can you say that in one sentence?",
    ),
    "question": (
        "Please end with a question to me.",
        "You should ask me something at the end.",
        "End with a question so that I can tell you more.",
        "Finish with a question about what I like.",
        "I would like you to ask a question at the end.",
        "Close with a question, please.",
        "Ask me a question at the end of the answer.",
    ),
    "bullets": (
        "Please use bullet points.",
        "Can you write that as bullet points?",
        "I would like a bulleted list instead.",
        "Put the steps as bullets.",
        "Too hard to read, make it a list with dashes.",
        "Bullets, please.",
    ),
    "three": (
        "I said I was in a hurry: three bullets at most.",
        "Three points at most, I have no time.",
        "No more than three steps when I am in a hurry.",
        "That is too many steps for somebody in a hurry, three at most.",
    ),
    "order": (
        'Please begin with "Order" and my number, I have several orders.',
        "Start with the order number, as in Order 12345:",
        "Put my order number in front of the answer.",
        "I gave you the order number, so begin with it.",
    ),
    "ask order": (
        "You should have asked for my order number.",
        "Ask me for the order number, otherwise you can't know.",
        "Why don't you ask for the order number?",
        "End by asking for the order number.",
    ),
    "straight": (
        "No apology in front, please.",
        "Skip the greeting.",
        "Get to the point without saying sorry first.",
    ),
    "brief": (
        "Forty words are enough for that.",
        "Please use at most forty words.",
        "Too long for me, forty words at most.",
        "Keep it below forty words.",
    ),
    "short": (
        "At most 25 words, please.",
        "Keep it under 25 words.",
        "That is too many words, 25 will do.",
    ),
}
"""How people ask for each wish."""
