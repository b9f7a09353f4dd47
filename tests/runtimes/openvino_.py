import openvino
from common import report


def run(model):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def infer(ids, mask):
        found = compiled({"input_ids": ids, "attention_mask": mask})
        return {output.get_any_name(): found[output] for output in compiled.outputs}

    return infer


report(["openvino"], run, note="INFERENCE_PRECISION_HINT f32: the default is bf16 where the processor has it")
