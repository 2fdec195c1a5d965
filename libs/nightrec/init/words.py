"""The words that public logs use for users, items, times, values and kinds of event."""

from __future__ import annotations

import re

from nightrec.tables import EVENT_TYPES


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# The raw contract's own names first, then what public logs call them, then lesser ones: without case, separators and
# RecBole's ":token".
NAMES: dict[str, tuple[frozenset[str], frozenset[str], frozenset[str]]] = {
    "user": (
        _words("userid"),
        _words(
            "user uid visitorid visitor fullvisitorid customerid customer customerno memberid member accountid",
            "reviewerid clientid buyerid username householdid household shopperid subscriberid",
        ),
        _words("session sessionid usersession cookie cookieid device deviceid guestid playlistid"),
    ),
    "item": (
        _words("itemid"),
        _words(
            "item iid productid product movieid movie asin isbn sku skuid articleid article trackid songid bookid",
            "stockcode contentid newsid videoid businessid artistid gameid listingid postid goodsid",
        ),
        _words("parentasin title itemname productname url track song artist book video"),
    ),
    "time": (
        _words("eventts eventtime"),
        _words(
            "timestamp timestampms time ts datetime date day epoch unixtime eventtimestamp eventdate createdat",
            "datecreated at occurredat reviewtime unixreviewtime invoicedate orderdate clicktime purchasedate dat tdat",
        ),
        _words("updatedat senttime sentts receivedts servertime modifiedat loadedat"),
    ),
    "type": (
        _words("eventtype"),
        _words("event eventname type action actiontype behavior behaviour behaviortype behaviourtype"),
        _words("interaction interactiontype activity"),
    ),
    "value": (
        _words("value"),
        _words("rating userrating bookrating rate score stars star overall quantity qty count plays playcount"),
        _words("weight amount units hours minutes"),
    ),
}
_ABOUT = {
    "user": _words("user customer visitor"),
    "item": _words("item product movie article"),
    "time": _words("time date timestamp"),
}
_MEANINGS = {
    "view": _words(
        "views viewed pageview pageviews detailview viewitem productview itemview detail pv visit open play listen",
        "watch read",
    ),
    "click": _words("clicks clicked clk clickout tap selectitem"),
    # A cart is a sign about as strong as a like; the contract has no type of its own for it.
    "like": _words("addtocart cart cartadd basket addtobasket likes liked thumbsup upvote share shared"),
    "dislike": _words("dislikes disliked thumbsdown downvote skip hide"),
    "favourite": _words("favorite fav favor bookmark save saved wishlist addtowishlist follow"),
    "comment": _words("comments commented review reviewed reply"),
    "rating": _words("rate rated ratings"),
    "purchase": _words("transaction buy bought order ordered purchased purchases sale sold checkout paid invoice"),
    "impression": _words("impressions imp show shown exposure display displayed"),
}
TYPES = {word: kind for kind in EVENT_TYPES for word in (kind, *_MEANINGS[kind])}


def event_type(word: str) -> str:
    """The raw contract's type for a word of the log; the word itself where none fits (the night then rejects it)."""
    return TYPES.get(re.sub(r"[^a-z]", "", word.lower()), word)


def fit(role: str, name: str) -> int:
    """How well a name fits a role: 4 the contract's, 3 a usual one, 2 a lesser one, 1 speaks of it, 0 does not."""
    plain = re.sub(r"[^a-z0-9]", "", re.sub(r":\w+$", "", name).lower())
    for tier, known in zip((4, 3, 2), NAMES[role], strict=True):
        if plain in known:
            return tier
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return int(bool(_ABOUT.get(role, frozenset()) & set(words)))
