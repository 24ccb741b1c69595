"""What a job sets for its whole process."""

import json
import subprocess
import sys

# As torch leaves them; then as a job has them, before anything has imported the compiler.
OPTIMIZERS = """
import json, sys
import torch
from cem.jobs.process import set_up_process

KINDS = [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD]
PLAIN = [kind.step for kind in KINDS]
set_up_process(1)

def trained(kind, step):
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    optimizer = kind(net.parameters(), lr=0.1, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.ones(2, 4)).square().sum().backward()
        step(optimizer)
        schedule.step()
        optimizer.load_state_dict(optimizer.state_dict())
    return torch.cat([each.flatten() for each in net.parameters()]).tolist()

ours = [trained(kind, lambda optimizer: optimizer.step()) for kind in KINDS]
compiler = sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules))
for kind, plain in zip(KINDS, PLAIN):
    kind.step = plain
torchs = [trained(kind, lambda optimizer: optimizer.step()) for kind in KINDS]
print(json.dumps({"compiler": compiler, "ours": ours, "torch's": torchs, "then": "torch._dynamo" in sys.modules}))
"""


def test_optimizers_step_as_torchs_do_and_import_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", OPTIMIZERS], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["compiler"] == []
    assert found["ours"] == found["torch's"]
    assert found["then"]  # or torch has changed, and the function that this tests does nothing any more
