//! A region as an operator of tract.
//!
//! In: [`RegionExpansion`], put in place of a region's node after the import. When tract knows the shapes, it becomes a
//! [`RegionOp`] with a [`Plan`]. Each session that tract spawns has its own [`State`].

use std::sync::Arc;

use ocellus_int8_kernels::Isa;
use tract_onnx::tract_hir::internal::*;

use crate::graph::{Region, SinkKind, Source};
use crate::plan::{Plan, State, infer, sink_shape};
use crate::pool::Pool;

#[derive(Clone, Debug)]
pub(crate) struct RegionExpansion {
    pub region: Arc<Region>,
    pub isa: Isa,
    pub pool: Arc<Pool>,
}

impl RegionExpansion {
    fn input_type(source: &Source) -> DatumType {
        match source {
            Source::Float { .. } => f32::datum_type(),
            Source::Bytes { signed: true, .. } => i8::datum_type(),
            Source::Bytes { .. } | Source::Region { .. } => u8::datum_type(),
        }
    }
}

fn output_type(kind: &SinkKind) -> DatumType {
    match kind {
        SinkKind::Float(_) => f32::datum_type(),
        SinkKind::Bytes { signed: true } => i8::datum_type(),
        SinkKind::Bytes { .. } | SinkKind::Region => u8::datum_type(),
        SinkKind::Largest { .. } => i64::datum_type(),
    }
}

/// Sizes that are numbers: a plan's buffers are sized at load.
fn concrete(shape: &[TDim]) -> TractResult<Vec<usize>> {
    shape.iter().map(|d| Ok(d.to_usize()?)).collect()
}

impl Expansion for RegionExpansion {
    fn name(&self) -> StaticName {
        "Int8Region".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.region.sinks.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let sources = self.region.sources();
        check_input_arity(inputs, sources.len())?;
        check_output_arity(outputs, self.region.sinks.len())?;
        for (proxy, source) in inputs.iter().zip(sources) {
            s.equals(&proxy.datum_type, Self::input_type(source))?;
        }
        for (proxy, sink) in outputs.iter().zip(&self.region.sinks) {
            s.equals(&proxy.datum_type, output_type(&sink.kind))?;
        }
        s.given_all(
            inputs.iter().map(|i| &i.shape),
            move |s, shapes: Vec<TVec<TDim>>| {
                let shapes = shapes
                    .iter()
                    .map(|s| concrete(s))
                    .collect::<TractResult<Vec<_>>>()?;
                let tensors = infer(&self.region, &shapes)?;
                for (proxy, sink) in outputs.iter().zip(&self.region.sinks) {
                    let shape = sink_shape(&sink.kind, &tensors[sink.tensor]);
                    let shape: TVec<TDim> = shape.iter().map(|d| d.to_dim()).collect();
                    s.equals(&proxy.shape, shape)?;
                }
                Ok(())
            },
        )
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shapes = inputs
            .iter()
            .map(|i| concrete(&model.outlet_fact(*i)?.shape));
        let shapes = shapes.collect::<TractResult<Vec<_>>>()?;
        let plan = Plan::new(&self.region, &shapes, self.isa)?;
        let tensors = infer(&self.region, &shapes)?;
        let sinks = &self.region.sinks;
        let facts = sinks.iter().map(|sink| {
            let shape = sink_shape(&sink.kind, &tensors[sink.tensor]);
            output_type(&sink.kind).fact(shape)
        });
        let op = RegionOp {
            plan,
            facts: facts.collect(),
            pool: self.pool.clone(),
        };
        model.wire_node(prefix, op, inputs)
    }
}

/// A region with its plan.
#[derive(Clone, Debug)]
pub(crate) struct RegionOp {
    pub plan: Arc<Plan>,
    facts: TVec<TypedFact>,
    pool: Arc<Pool>,
}

impl PartialEq for RegionOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan)
    }
}

impl Eq for RegionOp {}

impl Op for RegionOp {
    fn name(&self) -> StaticName {
        "Int8Region".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let Plan { isa, taken, .. } = &*self.plan;
        Ok(vec![format!(
            "{} operators on {isa}, {} multiply-accumulates",
            taken.len(),
            self.plan.macs(false)
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for RegionOp {
    not_out_of_plan!();

    fn state(&self, _ctx: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(RegionState {
            state: State::new(&self.plan, self.pool.clone()),
        })))
    }
}

impl TypedOp for RegionOp {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.facts.clone())
    }

    as_op!();
}

#[derive(Clone, Debug)]
struct RegionState {
    state: State,
}

impl OpState for RegionState {
    fn eval(
        &mut self,
        _ctx: &EvalContext,
        op: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let op = op
            .downcast_ref::<RegionOp>()
            .context("the state of a region belongs to a region")?;
        op.plan.run(&mut self.state, &inputs)
    }

    fn reset_lanes(&mut self, _lanes: &[LaneId]) -> TractResult<()> {
        // Nothing is carried from one run to the next.
        Ok(())
    }
}
