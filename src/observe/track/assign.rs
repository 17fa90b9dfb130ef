//! Which of these belongs to which of those: the assignment with the largest sum.

/// For each row the column that it is assigned, so that the sum of the weights is the largest that there is. Weights are at least 0;
/// pairs of weight 0 are not assigned. `weights` is row-major, `columns` wide.
///
/// Shortest augmenting paths (Jonker and Volgenant 1987), `O(rows² · columns)` where there are no more rows than columns.
pub(super) fn assign(weights: &[f32], columns: usize) -> Vec<Option<usize>> {
    let rows = weights.len().checked_div(columns).unwrap_or(0);
    if rows > columns {
        let transposed: Vec<f32> = (0..columns)
            .flat_map(|c| (0..rows).map(move |r| weights[r * columns + c]))
            .collect();
        let mut result = vec![None; rows];
        for (c, r) in assign(&transposed, rows).into_iter().enumerate() {
            if let Some(r) = r {
                result[r] = Some(c);
            }
        }
        return result;
    }
    let cost = |r: usize, c: usize| -f64::from(weights[r * columns + c]);
    // Index 0 stands for "none"; rows and columns count from 1.
    let (mut of_row, mut of_column) = (vec![0.0; rows + 1], vec![0.0; columns + 1]);
    let mut row_at = vec![0; columns + 1];
    for row in 1..=rows {
        row_at[0] = row;
        let mut shortest = vec![f64::INFINITY; columns + 1];
        let mut came_from = vec![0; columns + 1];
        let mut done = vec![false; columns + 1];
        let mut column = 0;
        while row_at[column] != 0 {
            done[column] = true;
            let r = row_at[column];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for c in (1..=columns).filter(|c| !done[*c]) {
                let reduced = cost(r - 1, c - 1) - of_row[r] - of_column[c];
                if reduced < shortest[c] {
                    (shortest[c], came_from[c]) = (reduced, column);
                }
                if shortest[c] < step {
                    (step, next) = (shortest[c], c);
                }
            }
            for c in 0..=columns {
                if done[c] {
                    of_row[row_at[c]] += step;
                    of_column[c] -= step;
                } else {
                    shortest[c] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            let before = came_from[column];
            row_at[column] = row_at[before];
            column = before;
        }
    }
    let mut result = vec![None; rows];
    for (c, &r) in row_at.iter().enumerate().skip(1) {
        if r != 0 && weights[(r - 1) * columns + c - 1] > 0.0 {
            result[r - 1] = Some(c - 1);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(weights: &[f32], columns: usize, assigned: &[Option<usize>]) -> f32 {
        let pairs = assigned.iter().enumerate();
        pairs
            .filter_map(|(r, c)| c.map(|c| weights[r * columns + c]))
            .sum()
    }

    /// Every way to assign.
    fn best(weights: &[f32], columns: usize, row: usize, taken: u32) -> f32 {
        if row * columns == weights.len() {
            return 0.0;
        }
        let without = best(weights, columns, row + 1, taken);
        (0..columns)
            .filter(|c| taken & (1 << c) == 0)
            .map(|c| weights[row * columns + c] + best(weights, columns, row + 1, taken | 1 << c))
            .fold(without, f32::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_other_assignment_has_a_larger_sum(
            (columns, weights) in (1usize..6, 0usize..6).prop_flat_map(|(c, r)| {
                let weight = prop_oneof![1 => Just(0.0f32), 3 => 0.0f32..1.0];
                (Just(c), prop::collection::vec(weight, c * r))
            })
        ) {
            let assigned = assign(&weights, columns);
            let mut taken: Vec<usize> = assigned.iter().flatten().copied().collect();
            let found = sum(&weights, columns, &assigned);
            prop_assert!((found - best(&weights, columns, 0, 0)).abs() < 1e-5);
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(taken.len(), assigned.iter().flatten().count());
        }
    }
}
