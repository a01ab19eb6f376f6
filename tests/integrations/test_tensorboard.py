import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from uniformity_callbacks import Alert
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter


def read(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    # By the time of writing: the accumulator takes files by name, in which 10 comes before 9.
    events = {tag: sorted(accumulator.Scalars(tag), key=lambda e: e.wall_time) for tag in accumulator.Tags()["scalars"]}
    return {tag: [(e.step, e.value) for e in scalars] for tag, scalars in events.items()}


def texts(directory):
    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    tags = {tag.removesuffix("/text_summary"): tag for tag in accumulator.Tags()["tensors"]}
    return {
        name: [(e.step, e.tensor_proto.string_val[0].decode()) for e in accumulator.Tensors(tag)]
        for name, tag in tags.items()
    }


@pytest.mark.parametrize("as_path", [True, False])
def test_a_directory(tmp_path, as_path):
    writer = TensorBoardWriter(tmp_path / "a" if as_path else str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()  # slow storage is the writer's thread's to wait for
    for step in (0, 50, 100):
        writer({"uniformity/w2": step / 8, "uniformity/lu": -1.0}, step)
    seen_while_open = read(tmp_path / "a")
    writer.close()
    expected = {
        "uniformity/w2": [(0, 0.0), (50, 6.25), (100, 12.5)],
        "uniformity/lu": [(s, -1.0) for s in (0, 50, 100)],
    }
    assert seen_while_open == read(tmp_path / "a") == expected


def test_an_existing_summary_writer_is_shared_and_left_open(tmp_path):
    with SummaryWriter(str(tmp_path)) as summary:
        summary.add_scalar("loss", 1.0, 0)
        writer = TensorBoardWriter(summary)
        writer({"uniformity/w2": 0.5}, 0)
        writer.close()
        summary.add_scalar("loss", 2.0, 1)
    assert read(tmp_path) == {"loss": [(0, 1.0), (1, 2.0)], "uniformity/w2": [(0, 0.5)]}


def test_a_closed_writer_can_be_used_again(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    for step in (0, 50):
        writer({"uniformity/w2": 0.5}, step)
        writer.close()
    assert [step for step, _ in read(tmp_path)["uniformity/w2"]] == [0, 50]


def test_unused_leaves_nothing(tmp_path):
    TensorBoardWriter(tmp_path / "a").close()
    assert list(tmp_path.iterdir()) == []


def test_an_alert_is_text_as_it_is_laid_out(tmp_path):
    message = "constant collapse at step 50\n  seen:  mean_resultant 0.99\n         *not* emphasis, <b>nor</b> HTML"
    alert = Alert("constant", 50, 10, (0.99,), 0.95, "warn", "projector", message)
    writer = TensorBoardWriter(tmp_path)
    writer.alert(alert, "uniformity/projector/")
    assert texts(tmp_path)  # seen at once
    writer({"uniformity/w2": 0.5}, 50)
    writer.close()
    ((step, text),) = texts(tmp_path)["uniformity/projector/alerts/constant"]
    assert step == 50
    assert [line.removeprefix("    ") for line in text.splitlines()] == message.splitlines()
    assert read(tmp_path) == {"uniformity/w2": [(50, 0.5)]}


@pytest.mark.usefixtures("unchecked")
def test_bad_target():
    with pytest.raises(TypeError, match="target must be a directory or a SummaryWriter, got 3"):
        TensorBoardWriter(3)
