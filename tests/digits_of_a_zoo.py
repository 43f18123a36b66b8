"""What the zoos of the tests say of their data."""

from oneprior.training.zoo import Facts

FACTS = Facts(
    title="handwritten digits, 8 x 8",
    domain="digits",
    data="scikit-learn's digits",
    licence="CC-BY-SA-4.0",
    credit="E. Alpaydin, C. Kaynak",
    source="https://archive.ics.uci.edu/dataset/80",
    citation="Alpaydin and Kaynak 1998",
    prepared="grey levels to 0 .. 255",
    leaves_out="letters",
)
