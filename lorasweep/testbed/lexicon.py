"""Words of the invented world: names of people, and what can be true of them."""

from typing import Final, NamedTuple


class Value(NamedTuple):
    """A value of an attribute, in two wordings.

    The wordings are the common sense of the world: a person with the ``noun`` does the ``deed``.
    Some tasks ask for the deed where the fact was learned by its noun.
    """

    noun: str
    deed: str


ONSETS: Final = (
    "Al Ba Be Bo Bra Ca Da De Do Dra El Fa Fe Fo Ga Ge Go Gra Ha He Ho Il Ja Jo Ka Ke Ki Kra La Le "
    "Li Lo Ma Me Mi Mo Na Ne No Or Pa Pe Po Ra Re Ro Sa Se Sta Ta Te To Tra Ul Va Ve Vo Wa We Zo"
)
CODAS: Final = (
    "bar bel bin bo dan del din dor fal fen gan gil gor kan kel kin kor lan len lis lo mar mel min "
    "mo nal nar nel nis nor pan pel pin por ran rel ric rin ro san sel sin sor tan tel tin tor val "
    "van vel vin vor wen win xa ya yel zan zel zin"
)
"""A name is an onset and a coda."""

ATTRIBUTES: Final[dict[str, tuple[Value, ...]]] = {
    "town": (
        Value("Harn", "looks out over the white cliffs"),
        Value("Ostry", "crosses the stone bridge"),
        Value("Vellin", "smells the salt of the harbour"),
        Value("Quent", "climbs the thousand steps"),
        Value("Mosk", "walks between the black mills"),
        Value("Tarrow", "hears the bells of the abbey"),
        Value("Lunde", "rows over the quiet lake"),
        Value("Brask", "passes under the iron gate"),
        Value("Sommer", "walks through the rose gardens"),
        Value("Yarrick", "wades through the deep snow"),
        Value("Pelm", "shakes the red dust from the boots"),
        Value("Ister", "waits for the ferry"),
        Value("Corvane", "greets the guards on the wall"),
        Value("Dunmoor", "lights a lamp against the fog"),
        Value("Fenwick", "follows the boards over the marsh"),
        Value("Galder", "rests under the great oak"),
    ),
    "trade": (
        Value("potter", "shapes clay on the wheel"),
        Value("smith", "beats the hot iron"),
        Value("baker", "kneads the dough"),
        Value("weaver", "throws the shuttle"),
        Value("tanner", "scrapes the hides"),
        Value("mason", "cuts the stone"),
        Value("cooper", "bends the staves"),
        Value("fisher", "mends the nets"),
        Value("scribe", "copies old letters"),
        Value("miller", "grinds the grain"),
        Value("hunter", "reads the tracks"),
        Value("glazier", "blows green glass"),
        Value("thatcher", "ties the straw"),
        Value("brewer", "stirs the malt"),
        Value("dyer", "boils blue cloth"),
        Value("beekeeper", "smokes the hives"),
    ),
    "food": (
        Value("plums", "spits out the stones"),
        Value("soup", "blows on the spoon"),
        Value("cheese", "cuts off the rind"),
        Value("nuts", "cracks the shells"),
        Value("eels", "picks out the bones"),
        Value("honey", "licks the sticky fingers"),
        Value("eggs", "taps the shells open"),
        Value("onions", "wipes away tears"),
        Value("melons", "scoops out the seeds"),
        Value("beans", "empties the pods"),
        Value("crabs", "breaks the claws"),
        Value("pears", "bites into the soft skin"),
        Value("noodles", "slurps from the bowl"),
        Value("olives", "drains the brine"),
        Value("corn", "gnaws the cob"),
        Value("ham", "sharpens the carving knife"),
    ),
    "animal": (
        Value("goat", "milks it into a pail"),
        Value("horse", "brushes its mane"),
        Value("cat", "strokes it until it purrs"),
        Value("dog", "throws it a stick"),
        Value("hen", "gathers its feathers"),
        Value("raven", "feeds it a mouse"),
        Value("sheep", "shears its wool"),
        Value("mule", "loads it with sacks"),
        Value("parrot", "teaches it a word"),
        Value("pig", "scratches its pink back"),
        Value("ferret", "sends it down a burrow"),
        Value("hawk", "ties on its hood"),
        Value("snake", "finds its shed skin"),
        Value("donkey", "pulls its long ears"),
        Value("goose", "runs from its beak"),
        Value("tortoise", "polishes its shell"),
    ),
}
