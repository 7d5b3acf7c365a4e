// Epilogue of a product. The kernel binds `bias` and `c`, and its Params have `flags`.

const BIAS = 4u;
const ADD = 8u;  // to what is in C

// A thread stores an element of C: the sum, with the bias of its column and what is there already where the flags ask for them.
fn store(at: u32, col: u32, sum: f32) {
    var v = sum;
    if (p.flags & BIAS) != 0u { v += bias[col]; }
    if (p.flags & ADD) != 0u { v += c[at]; }
    c[at] = v;
}
