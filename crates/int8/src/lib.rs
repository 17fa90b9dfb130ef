//! Integer execution of quantized models inside tract.
