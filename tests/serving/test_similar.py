import pytest
import torch
import torch.nn.functional as F

from stages.errors import InputError
from stages.models.content import fuse_modalities
from stages.serving.similar import similar_items
from tests.serving.conftest import trained_model


@pytest.mark.parametrize("by", ["id", "text", "image", "both"])
def test_similar_items_have_the_largest_cosine_and_leave_out_the_item_itself(trained, by):
    model, every = trained.model, torch.arange(1, trained.items.height + 1)
    with torch.no_grad():
        content = model.content(every)
        vectors = {"id": model.item_embedding(every), "both": fuse_modalities(content), **content}[by]
        cosines = F.cosine_similarity(vectors, vectors[4:5]).tolist()
    rows = similar_items(trained, 5, by=by, top=6)
    found = [int(raw_id.removeprefix("v")) - 1 for raw_id in rows["item"]]
    best = sorted((cosine for n, cosine in enumerate(cosines) if n != 4), reverse=True)[:6]
    assert rows["score"].to_list() == pytest.approx(best, abs=1e-6)
    assert rows["score"].to_list() == pytest.approx([cosines[n] for n in found], abs=1e-6)
    assert 4 not in found
    assert rows["rank"].to_list() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("by", "changes"),
    [("image", {"widths": {"text": 6}}), ("both", {"widths": {"text": 6}}), ("id", {"use_id": False, "frozen": ()})],
)
def test_a_modality_that_the_model_lacks_is_refused(by, changes):
    with pytest.raises(InputError, match=f"--by {by}: the model was trained with modalities="):
        similar_items(trained_model(**changes), 5, by=by, top=3)


@pytest.mark.parametrize(
    ("usual", "changes"),
    [("both", {}), ("text", {"widths": {"text": 6}}), ("id", {"widths": {}})],
)
def test_without_by_all_content_that_the_model_reads_counts(usual, changes):
    trained = trained_model(**changes)
    assert similar_items(trained, 5, by=None, top=3).equals(similar_items(trained, 5, by=usual, top=3))
