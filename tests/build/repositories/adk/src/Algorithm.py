from Algorithmia import ADK


# `load` runs once, before the first call; what it returns is the second argument of `apply`.
def load(state):
    state["factors"] = {"celsius": (1.0, 0.0), "fahrenheit": (1.8, 32.0), "kelvin": (1.0, 273.15)}
    return state


def apply(input, state):
    if isinstance(input, str):
        return f"hello {input}"
    if not isinstance(input, dict) or "celsius" not in input:
        raise ValueError('send a text, or {"celsius": a number, "to": a scale}')
    factor, offset = state["factors"][input.get("to", "fahrenheit")]
    return {"value": round(input["celsius"] * factor + offset, 2), "scale": input.get("to", "fahrenheit")}


algorithm = ADK(apply, load)
algorithm.init({"celsius": 21.5, "to": "fahrenheit"})
