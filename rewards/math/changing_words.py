"""Words of languages in Latin letters that change or doubt the number before them: `5 milioni`, `5 oder`, `5 buçuk`.

Any other word behind a number may be what is counted, so these are told one by one. English ones: rewards/math/units.py; other
scripts: rewards/math/scripts.py. Words that are English units too (cent, miles, quart, ton) are left out.
"""

import unicodedata

CHANGING = frozenset(
    str.split(
        """
hundert hunderte hundra hundre honderd cientos cientas centaine centaines cento centinaia cem centos centenas sto yuz ratus tram szaz sata sataa sute
tausende tusen tusind duizend milliers mil migliaia milhar milhares tysiac tysiace tysiecy tisic tisice ezer tuhat tuhatta bin ribu nghin ngan
miljon miljoner miljoen millionen milion miliony milionow milionu milioni milioane milyon juta trieu miljoona miljoonaa millio millones milhao milhoes
miljard miljarder miliard miliardy miliardow miliardi miliarde milyar miliar milliard milliarder milliardo mil_millones bilhao bilhoes bilion bilyon trilyon triliun ty puluh
dutzend dozijn dussin dosin tuzin tucet tucat docena docenas douzaine douzaines dozzina dozzine duzia duzias lusin duzine chuc
halb halbe halber halbes halfte anderthalb eineinhalb helft halve halv halva halvt pol pul polowa fel puoli puolet jumatate medio mitad demi demie moitie mezzo mezza
meia metade yarim bucuk setengah separuh nua
drittel viertel funftel zehntel tercio tercios cuarto cuartos terzo terzi quarto quarti terco tercos ceyrek ucte
nueve otto ocho sette siete seis vier zwei drei deux trois quatre cinq huit neuf cinco quattro cinque
oder nicht kein keine ou ni veya degil atau bukan niet geen eller inte lub albo nie nebo neni vagy nem hoac khong sau nu senza sem ohne sans
mindestens hochstens weniger mehr wenigstens menos moins meno piu mais meer minder mindre mer mniej wiecej mene vice kurang lebih daha eksik fazla
mal fois veces volte vezes kali lan kat kati razy krat keer ganger gang kertaa
minus eksi kurangi tru komma virgule coma virgola virgul przecinek koma phay
ungefahr etwa circa environ aproximadamente approximativement ongeveer ungefar omtrent okolo przyblizeniu priblizne sekitar kira yaklasik khoang noin
faktorial fakultat faktoriel factorielle fattoriale
"""
    )
)
"""Scales, parts, small numbers, or, not, more, less, times, minus, about; without accents."""


def changes_number(word: str) -> bool:
    """Whether a word in lower case is one of them, accents aside."""
    return _bare(word) in CHANGING


def _bare(word: str) -> str:
    if word.isascii():
        return word
    parts = unicodedata.normalize("NFD", word.replace("ı", "i").replace("ł", "l").replace("đ", "d"))
    return "".join(sign for sign in parts if not unicodedata.combining(sign))
