//! A look at a protobuf's wire format before it is decoded: how many fields there are, and how deep they nest.
//!
//! In: an ONNX file's bytes. Out: whether decoding them costs bounded memory. Nothing is allocated but a short stack.
//! Two bytes on the wire can become a message of several hundred in memory: without this bound a file of 1 GiB would
//! fill 100 GiB. Real networks have some ten thousand fields, their weights being one field a tensor.

/// Fields in one file: 262,144. The largest message has some 400 bytes in memory.
const MAX_FIELDS: usize = 1 << 18;
/// Messages in messages. A network without sub-graphs needs six.
const MAX_DEPTH: usize = 24;

/// The messages of onnx.proto that contain others; every other field is a leaf.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Annotation,
    Training,
    Function,
    Leaf,
}

/// What the field `number` of a `kind` holds.
fn kind_of(kind: Kind, number: u64) -> Kind {
    use Kind::*;
    match (kind, number) {
        (Model, 7) | (Attribute, 6 | 11) | (Training, 1 | 2) => Graph,
        (Model, 20) => Training,
        (Model, 25) => Function,
        (Graph, 1) | (Function, 7) => Node,
        (Graph, 5) | (Attribute, 5 | 10) | (SparseTensor, 1 | 2) => Tensor,
        (Graph, 15) | (Attribute, 22 | 23) => SparseTensor,
        (Graph, 11..=13) => ValueInfo,
        (Graph, 14) => Annotation,
        (Node, 5) => Attribute,
        (ValueInfo, 2) | (Attribute, 15) => Type,
        (Type, 1) => TensorType,
        (TensorType, 2) => Shape,
        _ => Leaf,
    }
}

/// Whether the bytes can be decoded as an ONNX model in bounded memory.
///
/// # Errors
/// The wire format is broken (no ONNX file, or a truncated one), or there is too much of it.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let broken = || "it is not an ONNX file, or it is truncated".to_string();
    let mut at = 0;
    let mut fields = 0;
    // The messages that `at` lies in, outermost first, each with where it ends.
    let mut open = vec![(Kind::Model, bytes.len())];
    while let Some(&(kind, end)) = open.last() {
        if at == end {
            open.pop();
            continue;
        }
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(format!(
                "it has more than {MAX_FIELDS} fields, which no network needs"
            ));
        }
        let message = &bytes[..end];
        let tag = varint(message, &mut at).ok_or_else(broken)?;
        let length = match tag & 7 {
            0 => {
                varint(message, &mut at).ok_or_else(broken)?;
                0
            }
            1 => 8,
            2 => varint(message, &mut at).ok_or_else(broken)?,
            5 => 4,
            _ => return Err(broken()),
        };
        let field_end = usize::try_from(length)
            .ok()
            .and_then(|l| at.checked_add(l))
            .filter(|e| *e <= end)
            .ok_or_else(broken)?;
        match kind_of(kind, tag >> 3) {
            inner if tag & 7 == 2 && inner != Kind::Leaf => {
                if open.len() == MAX_DEPTH {
                    return Err("its messages are nested too deeply for a network".into());
                }
                open.push((inner, field_end));
            }
            _ => at = field_end,
        }
    }
    Ok(())
}

/// A base-128 number of at most ten bytes; moves `at` behind it.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(content);
        out
    }

    #[test]
    fn a_graph_of_empty_nodes_is_refused_before_it_is_decoded() {
        let nodes = field(1, &[]).repeat(MAX_FIELDS);
        let problem = check(&field(7, &nodes)).unwrap_err();
        assert!(problem.contains("fields"), "{problem}");
        assert_eq!(check(&field(7, &field(1, &[]).repeat(1000))), Ok(()));
    }

    #[test]
    fn weights_count_once_however_large() {
        let weights = field(9, &vec![0; 10 << 20]);
        assert_eq!(check(&field(7, &field(5, &weights))), Ok(()));
    }

    #[test]
    fn graphs_in_graphs_are_refused() {
        let mut graph = Vec::new();
        for _ in 0..1000 {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        assert!(check(&field(7, &graph)).unwrap_err().contains("nested"));
    }

    #[test]
    fn what_is_cut_short_or_no_protobuf_is_refused() {
        let whole = field(7, &field(1, &field(4, b"Conv")));
        assert_eq!(check(&whole), Ok(()));
        for cut in 1..whole.len() {
            assert!(check(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(check(b"\xff\xd8\xff\xe0 this is a picture").is_err());
        assert!(
            check(&[
                0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01
            ])
            .is_err()
        );
    }
}
