"""`[model]`: the policy, read from a folder or made from scratch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.sections.base import Names, Section


class BuildSection(Section):
    """A small untied Qwen2 made from scratch, for runs that need no download."""

    tokenizer: Literal["", "characters", "bpe"] = ""
    """Tokenizer of the model that is built. `characters`: one token a character plus the four R1 tags; `bpe`: a
    byte-level BPE trained on the data sources of the recipe; empty: no model is built, `model.path` names one."""
    vocab_size: Annotated[int, Field(ge=300)] = 2048
    """Vocabulary of the `bpe` tokenizer, in tokens (`characters` has its own)."""
    layers: Annotated[int, Field(ge=1)] = 3
    """Transformer layers of the model that is built."""
    hidden: Annotated[int, Field(ge=16)] = 128
    """Width of the residual stream of the model that is built."""
    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads of the model that is built."""
    kv_heads: Annotated[int, Field(ge=1)] = 4
    """Key/value heads of the model that is built (grouped-query attention when fewer than `heads`)."""
    intermediate: Annotated[int, Field(ge=16)] = 384
    """Width of the feed-forward layers of the model that is built."""
    tied: bool = False
    """Whether the model that is built shares its input and output embedding."""

    @model_validator(mode="after")
    def _head_size(self) -> Self:
        if self.hidden % (32 * self.heads):
            raise ValueError(
                f"model.build.hidden = {self.hidden} over {self.heads} heads: the engine needs a head size that is a "
                f"multiple of 32, so hidden must be a multiple of {32 * self.heads}"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"model.build.heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        return self


class ModelSection(Section):
    path: Annotated[str, Names("model")] = ""
    """Hugging Face model folder or hub id that the first stage starts from; empty: the model that `model.build`
    describes."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the forward pass and of the engine; master weights and gradient sums are always float32. `auto`:
    bfloat16 on a GPU, float32 on a CPU."""
    max_tokens: Annotated[int, Field(ge=8)] = 512
    """Longest prompt plus completion that the engine accepts, in tokens."""
    trust_remote_code: bool = False
    """Whether Python that ships inside the model folder may run; if not, a model that needs it is refused."""
    build: BuildSection = BuildSection()
