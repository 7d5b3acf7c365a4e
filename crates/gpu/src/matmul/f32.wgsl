// Tiles of a product in single precision.

alias Quad = vec4f;

fn quad(v: vec4f) -> Quad {
    return v;
}
