"""The words of the mini corpus: what reviewers judge, how, and what the films are about."""

from collections.abc import Callable
from dataclasses import dataclass

LABELS = ("neg", "pos")


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """Split at bars; an empty phrase is kept, for a slot that may be empty."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


def polar(
    split: Callable[[str], tuple[str, ...]], neg: str, pos: str
) -> dict[str, tuple[str, ...]]:
    return {"neg": split(neg), "pos": split(pos)}


@dataclass(frozen=True)
class Aspect:
    """Something reviewers judge: its names (all singular), and qualities and deeds by label."""

    nouns: tuple[str, ...]
    qualities: dict[str, tuple[str, ...]]
    deeds: dict[str, tuple[str, ...]]


ASPECTS = (
    Aspect(
        phrases("acting | cast | lead performance | supporting cast | ensemble"),
        polar(
            words,
            neg="wooden stiff unconvincing flat mannered lifeless amateurish strained listless",
            pos="superb convincing magnetic natural subtle committed warm truthful fearless",
        ),
        polar(
            phrases,
            neg="drags every scene down | sinks the quieter moments | rings false | falls short",
            pos="lifts every scene | shines in the quieter moments | rings true | steals the show",
        ),
    ),
    Aspect(
        phrases("script | screenplay | writing | dialogue"),
        polar(
            words,
            neg="clumsy stale muddled preachy lazy wordy obvious childish garbled leaden",
            pos="witty sharp intelligent crisp layered economical perceptive eloquent quotable",
        ),
        polar(
            phrases,
            neg="talks down to us | repeats itself | explains everything twice | insults the ear",
            pos="trusts the audience | sparkles | says much in few words | delights the ear",
        ),
    ),
    Aspect(
        phrases("music | score | soundtrack | sound design"),
        polar(
            words,
            neg="grating shrill syrupy bombastic tinny monotonous intrusive forgettable pompous",
            pos="haunting lovely stirring delicate inventive tender hypnotic restrained memorable",
        ),
        polar(
            phrases,
            neg="drowns the dialogue | smothers the mood | grates on the nerves | kills the joy",
            pos="deepens the mood | lingers for days | soothes the nerves | adds to the joy",
        ),
    ),
    Aspect(
        phrases("camera work | cinematography | photography | lighting"),
        polar(
            words,
            neg="murky ugly shaky drab careless gloomy blurry cheap muddy shapeless",
            pos="gorgeous luminous elegant striking fluid painterly lush radiant bold crystalline",
        ),
        polar(
            phrases,
            neg="hides the action | makes you squint | misses the best moments | strains the eye",
            pos="pleases the eye | catches every glance | finds beauty in plain rooms | glows",
        ),
    ),
    Aspect(
        phrases("pace | rhythm | tempo | editing"),
        polar(
            words,
            neg="sluggish plodding uneven jerky slack tiresome ponderous erratic sleepy",
            pos="brisk taut lively steady nimble energetic breathless measured supple",
        ),
        polar(
            phrases,
            neg="drags | stalls halfway | tests your patience | sends you to sleep",
            pos="pulls you along | moves like clockwork | rewards your patience | keeps you awake",
        ),
    ),
    Aspect(
        phrases("ending | finale | last act | final scene | conclusion"),
        polar(
            words,
            neg="abrupt predictable contrived hollow silly rushed ludicrous confusing limp",
            pos="moving satisfying daring poignant fitting cathartic clever unforgettable graceful",
        ),
        polar(
            phrases,
            neg="cheats the viewer | throws everything away | leaves a bad taste | spoils the rest",
            pos="repays the viewer | ties the threads together | warms the heart | crowns the rest",
        ),
    ),
    Aspect(
        phrases("humor | comedy | banter | slapstick"),
        polar(
            words,
            neg="crude unfunny tired forced juvenile lame corny tasteless desperate",
            pos="hilarious dry playful mischievous sly delightful fresh infectious cheeky",
        ),
        polar(
            phrases,
            neg="falls flat | wears thin | outstays its welcome | makes you groan",
            pos="hits the mark | catches you off guard | brightens the day | makes you laugh",
        ),
    ),
    Aspect(
        phrases("story | plot | premise | narrative"),
        polar(
            words,
            neg="boring derivative incoherent dull implausible thin formulaic pointless shallow",
            pos="gripping original absorbing compelling touching intriguing coherent thoughtful",
        ),
        polar(
            phrases,
            neg="treads water | falls apart | collapses under its own weight | defies belief",
            pos="keeps you guessing | holds together | grabs you by the collar | grows on you",
        ),
    ),
    Aspect(
        phrases("direction | staging | choreography | stagecraft"),
        polar(
            words,
            neg="timid sloppy anonymous indifferent fussy aimless indulgent pedestrian mechanical",
            pos="assured confident precise sensitive masterly disciplined humane skillful inspired",
        ),
        polar(
            phrases,
            neg="loses its nerve | copies better work | smells of haste | breaks the spell",
            pos="keeps its nerve | finds new angles | shows great care | casts a spell",
        ),
    ),
    Aspect(
        phrases("scenery | decor | period detail | production design"),
        polar(
            words,
            neg="fake shabby bland garish flimsy tacky cluttered dreary phony",
            pos="sumptuous authentic evocative charming handsome vivid rich meticulous beautiful",
        ),
        polar(
            phrases,
            neg="looks like cardboard | distracts from the drama | betrays the small budget",
            pos="brings the era to life | serves the drama | hides the small budget well",
        ),
    ),
    Aspect(
        phrases("romance | love story | central friendship | chemistry"),
        polar(
            words,
            neg="mawkish chilly cloying bloodless sentimental tepid awkward trite sickly",
            pos="believable sweet heartfelt passionate disarming sincere electric affecting",
        ),
        polar(
            phrases,
            neg="leaves you cold | cools quickly | embarrasses everyone | strikes a false note",
            pos="melts your heart | smolders | charms everyone | strikes the right note",
        ),
    ),
)

FILM = Aspect(
    phrases("film | movie | picture | production"),
    polar(
        words,
        neg="tedious dismal exhausting mediocre worthless unbearable soulless irritating",
        pos="enchanting splendid refreshing remarkable rewarding irresistible soulful entertaining",
    ),
    polar(
        phrases,
        neg="wastes your evening | fails | disappoints | bores me | runs out of ideas",
        pos="makes your evening | works | delivers | moves me | bursts with ideas",
    ),
)

GENERAL_QUALITIES = polar(
    words,
    neg="bad poor awful terrible dreadful weak disappointing horrible",
    pos="good great wonderful excellent brilliant terrific impressive marvelous",
)

POLAR = {
    "kind": polar(
        phrases,
        neg="mess | disaster | bore | failure | dud | chore | letdown | waste of time",
        pos="gem | triumph | delight | success | treat | treasure | joy | small miracle",
    ),
    "feel": polar(
        words, neg="hate dislike loathe resent despise", pos="love like enjoy admire adore"
    ),
    "superlative": polar(words, neg="worst weakest poorest", pos="best strongest finest"),
}

NEUTRAL = {
    "degree": phrases("| | really | truly | genuinely | particularly | altogether"),
    "consequence": phrases(
        "the whole row noticed | I put my notes away | we spoke of it all the way home"
        "| my neighbor turned to me | I watched that part twice | it stays in the mind"
    ),
    "yardstick": phrases("they come | any I remember | any this year | any in the series"),
    "since": phrases("this year | in years | at any festival | this season | since school"),
    "friends": phrases(
        "friends | colleagues | my sister | my brother | my neighbors | two critics | my students"
        "| the usher | everyone at work | my old teacher"
    ),
    "company": phrases(
        "my father | my aunt | three friends | our film club | my daughter | a colleague"
        "| my roommate | my cousins"
    ),
    "film": words("film movie picture"),
    "occasion": phrases(
        "last night | on a rainy Sunday | at a small festival | on a long flight | in March"
        "| on an old disc | in a village hall | during the holidays | at the Rialto | on cable"
    ),
    "title_first": words(
        "Salt Paper Winter Silver Hidden Seventh Northern Glass Copper Midnight Borrowed Last"
    ),
    "title_last": words(
        "Road Ferry Orchard Lantern Bridge Garden Letter Harbor Clock Tide Window River Map Bell"
    ),
    "ordinal": words("first second third fourth fifth latest"),
    "year": words("1938 1947 1956 1963 1968 1974 1981 1987 1992 1999 2003 2008"),
    "minutes": words("84 91 97 103 112 118 126 140"),
    "first": words(
        "Marta Joseph Ilse Tomas Ruth Victor Amara Edwin Lucia Henrik Nadia Oscar Priya Walter"
        " Yusuf Clara Bernard Sofia Dmitri Hazel"
    ),
    "frequent_last": words(
        "Lindqvist Moreau Okafor Barlow Petrov Castellan Whitlock Novak Ferreira Tanaka Abbott"
        " Keller Rossi Dunmore Halvorsen Mbeki Quill Sandoval Thorne Vance"
    ),
    "last_head": words(
        "Ash Bram Cald Dray Elk Fair Gran Hart Ives Kess Lark Marl Nor Orm Pell Quar Rad Sel Tarn"
        " Under Ver Wend Yar Zell"
    ),
    "last_tail": words(
        "by croft dale den feld ford gate ham holt ley low man mere more ridge son stead strom ton"
        " wick win wood"
    ),
    "place": phrases(
        "Lisbon | Bergen | Trieste | Montreal | Odessa | Glasgow | Naples | Kyoto | Dakar"
        "| Cardiff | Antwerp | Lima | Galway | Tangier | Bombay | Hamburg"
    ),
    # Half of the traits are words of praise or blame: said of a character, they judge nothing.
    "trait": words(
        "retired young elderly widowed homesick lonely stubborn shy penniless superstitious"
        " charming clumsy dull brilliant witty gloomy lazy fearless timid warm chilly good bad"
        " silly clever cheap tender awkward great terrible sweet boring"
    ),
    "job": words(
        "detective postman surgeon baker pilot librarian violinist smuggler teacher"
        " farmer clerk painter journalist sailor widow thief nurse gardener boxer translator"
        " clockmaker judge waiter acrobat"
    ),
    "pair": phrases(
        "rivals | strangers | neighbors | spies | twins | cousins | roommates | old friends"
    ),
    "kin": words("sister brother uncle daughter son mother twin cousin"),
    "setting": phrases(
        "on a night train | in a mountain hotel | at a funeral | in a flooded mine | on a ferry"
        "| in a boarding school | at a county fair | in a hospital corridor | at the border"
        "| in a shop for umbrellas"
    ),
    "gets": phrases("inherits | loses | finds | guards | sells | hunts for | borrows | dreams of"),
    "thing": phrases(
        "an old lighthouse | a box of letters | a stolen violin | the last ferry ticket"
        "| a gold coin | a map of the marshes | a racing pigeon | a locked piano | a wedding dress"
        "| the family farm | a blue bicycle | an unsigned painting | a suitcase of rubles"
        "| a lame horse | a brass key"
    ),
    "relation": words("Sons Daughters Partners Company"),
    "goods": words("rope lamps tea pianos stamps boots wine clocks"),
    "notice": phrases("Closed until spring | Rooms to let | Keep out | No dogs | Back at noon"),
}
