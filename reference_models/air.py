"""AIR: Attend, Infer, Repeat (Eslami et al., NeurIPS 2016), with the number of objects enumerated.

An image is N objects on black. An object is *where* it is (scale and position of a square window) and *what*
it looks like (a code that a decoder turns into the window's content). A recurrent network finds one object
a step and decides before each whether there is one more.

The ELBO's expectation over that decision is taken exactly: all K steps are unrolled as if every object were
there, and the K + 1 possible counts are weighted by their posterior probability (`parts.counts`). What is
left to sample is continuous and reparameterised, so that the gradient is that of a plain autoencoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, kl_divergence
from torch.nn.functional import mse_loss

from multiobj_data.errors import UsageError
from multiobj_data.scenes import Prediction
from reference_models.base import ImageShape, Loss, ModelConfig, SceneModel, noise_of
from reference_models.parts.counts import at_least, geometric_prior, presence_of, stick_breaking
from reference_models.parts.nets import kl_to_standard_normal, mlp, normal_from, output_layer, reparameterise
from reference_models.parts.windows import Windows

WHERE = 3  # z_where: log scale, x, y


@dataclass(frozen=True, kw_only=True)
class AIRConfig(ModelConfig):
    """Settings of `AIR`. "Pyro" is the AIR example of that library, which reaches 98 % with these sizes."""

    max_objects: int = 3  # Pyro
    estimator: Literal["enumerate"] = "enumerate"  # ours: exact over N; the paper samples N (score function)
    count_ratio: float = 1e-4  # ours: with Pyro's 0.01 some seeds keep drawing an empty first window
    object_scale: float = 1 / 3  # Pyro: inverse scale 3; median window side over canvas side
    object_scale_sd: float = 0.2  # ours: of the log scale; at 0.1, large digits are taken for two
    position_sd: float = 0.5  # ours: of the centre; the canvas reaches from -1 to 1
    what_size: int = 50  # Pyro
    window_size: int = 28  # Pyro: the size of an MNIST digit
    likelihood_sd: float = 0.3  # Pyro
    lstm_size: int = 256  # Pyro
    hidden_size: int = 200  # Pyro: of encoder, decoder and step predictor
    decoder_bias: float = -2.0  # Pyro: a bright first canvas makes "no object" the best answer for good
    presence_bias: float = 2.0  # ours: begin with every object there, so that decoder and windows learn
    where_raw_sd: float = -2.0  # ours: softplus gives 0.13; wide windows blur the first objects away
    mask_level: float = 0.1  # ours: the grey above which a pixel is an object's agrees best with the digits
    learning_rate: float = 1e-3  # ours: twice as fast as 5e-4 and no less safe; Pyro has 1e-4
    half_life: float = 2000.0  # ours: at a constant rate, touching digits are more and more often merged
    gradient_clip: float = 100.0  # ours: norms are some hundred (sums over pixels); Adam forgives the scale

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if not isinstance(value, str)}
        signed = ("decoder_bias", "presence_bias", "where_raw_sd")
        for name, value in numbers.items():
            if not math.isfinite(value) or (name not in signed and value <= 0):
                raise UsageError(f"air: {name} must be a positive number, got {value}.")


class State(NamedTuple):
    """What one step of inference hands to the next."""

    hidden: Tensor  # [B, lstm_size]
    cell: Tensor  # [B, lstm_size]
    z: Tensor  # [B, 3 + what_size], the object just found


class Found(NamedTuple):
    """What one step of inference says about its object."""

    presence_logit: Tensor  # [B]
    where: Tensor  # [B, 6], parameters of q(z_where)
    what: Tensor  # [B, 2 what_size], parameters of q(z_what)


@dataclass(frozen=True)
class Posterior:
    """q(N, z | x), with one sample of z; objects in the order in which they were found."""

    count: Categorical  # N = 0..K, batch [B]
    where: Independent  # [B, K, 3]
    what: Independent  # [B, K, what_size]
    z_where: Tensor  # [B, K, 3]
    z_what: Tensor  # [B, K, what_size]


class AIR(SceneModel):
    """Attend, Infer, Repeat.

    Differs from the paper: N is enumerated instead of sampled; z_where is a standard normal that is mapped
    to a log-normal scale and a normal position, so that no window can have a negative side.

    Args:
        config: Settings.
        image_shape: ``(H, W, C)``; any size, any number of channels.
    """

    config_type = AIRConfig
    config: AIRConfig

    def __init__(self, config: AIRConfig, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        height, width, channels = image_shape
        c = config
        latents = WHERE + c.what_size
        pixels = channels * c.window_size**2
        # The LSTM's weights in two: the image is the same in every step, its share is computed once.
        self.read_image = nn.Linear(height * width * channels, 4 * c.lstm_size)
        self.read_state = nn.Linear(c.lstm_size + latents, 4 * c.lstm_size, bias=False)
        self.find = mlp(c.lstm_size, [c.hidden_size], 1 + 2 * WHERE)
        self.encode = mlp(pixels, [c.hidden_size], 2 * c.what_size)
        self.decode = mlp(c.what_size, [c.hidden_size], pixels)
        self.first = nn.Parameter(torch.zeros(2 * c.lstm_size + latents))
        self._initialise()

    def _initialise(self) -> None:
        c = self.config
        bound = c.lstm_size**-0.5
        with torch.no_grad():
            for layer in (self.read_image, self.read_state):
                nn.init.uniform_(layer.weight, -bound, bound)
            self.read_image.bias.zero_()
            self.read_image.bias[c.lstm_size : 2 * c.lstm_size] = 1.0  # remember at first
            find, decode = output_layer(self.find), output_layer(self.decode)
            find.weight.mul_(0.1)  # begin at the prior: centred windows of the usual size
            find.bias.zero_()
            find.bias[0] = c.presence_bias
            find.bias[1 + WHERE :] = c.where_raw_sd
            decode.bias.fill_(c.decoder_bias)

    # --- inference ------------------------------------------------------------------------------------

    def infer(self, images: Tensor, noise: Tensor) -> Posterior:
        """Return q(N, z | x) and the sample of z that belongs to ``noise``.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B, K, 3 + what_size]``; zeros give the posterior means.
        """
        image_gates = self.read_image(images.flatten(1))  # [B, 4 lstm_size]
        sizes = [self.config.lstm_size, self.config.lstm_size, noise.shape[-1]]
        state = State(*self.first[None].split(sizes, dim=-1))  # [1, ...]: the same for every image
        steps = []
        zs = []
        for step_noise in noise.unbind(1):
            state, found = self.step(state, images, image_gates, step_noise)
            steps.append(found)
            zs.append(state.z)
        found = Found(*(torch.stack(values, dim=1) for values in zip(*steps, strict=True)))  # [B, K, ...]
        z_where, z_what = torch.stack(zs, dim=1).split([WHERE, self.config.what_size], dim=-1)
        return Posterior(
            count=stick_breaking(found.presence_logit),
            where=normal_from(found.where),
            what=normal_from(found.what),
            z_where=z_where,
            z_what=z_what,
        )

    def step(self, state: State, images: Tensor, image_gates: Tensor, noise: Tensor) -> tuple[State, Found]:
        """Find one more object, as if there were one."""
        gates = image_gates + self.read_state(torch.cat([state.hidden, state.z], dim=-1))
        hidden, cell = lstm(gates, state.cell)
        presence_logit, where = self.find(hidden).split([1, 2 * WHERE], dim=-1)
        noise_where, noise_what = noise.split([WHERE, self.config.what_size], dim=-1)
        z_where = reparameterise(where, noise_where)
        glimpse = self.windows(z_where).crop(images, self.config.window_size)  # [B, C, S, S]
        what = self.encode(glimpse.flatten(1))
        z_what = reparameterise(what, noise_what)
        z = torch.cat([z_where, z_what], dim=-1)
        return State(hidden, cell, z), Found(presence_logit.squeeze(-1), where, what)

    def windows(self, z_where: Tensor) -> Windows:
        """Return the windows of ``z_where [..., 3]``."""
        c = self.config
        height, width, _ = self.image_shape
        scale, x, y = z_where.unbind(-1)
        return Windows(
            x=x * (c.position_sd * width / 2) + width / 2,
            y=y * (c.position_sd * height / 2) + height / 2,
            side=torch.exp(c.object_scale_sd * scale) * (c.object_scale * min(height, width)),
        )

    def z_where_of(self, windows: Windows) -> Tensor:
        """Return the ``z_where [..., 3]`` of windows; the inverse of `windows`."""
        c = self.config
        height, width, _ = self.image_shape
        scale = torch.log(windows.side / (c.object_scale * min(height, width))) / c.object_scale_sd
        x = (windows.x / (width / 2) - 1) / c.position_sd
        y = (windows.y / (height / 2) - 1) / c.position_sd
        return torch.stack([scale, x, y], dim=-1)

    # --- generation -----------------------------------------------------------------------------------

    def prior_count(self, like: Tensor) -> Categorical:
        """Return p(N) with the type and device of ``like``."""
        prior = geometric_prior(self.config.max_objects, self.config.count_ratio)
        return Categorical(logits=prior.logits.to(like), validate_args=False)

    def render(self, z_where: Tensor, z_what: Tensor) -> Tensor:
        """Draw each object alone on a canvas: ``[B, K, C, H, W]``."""
        height, width, channels = self.image_shape
        size = self.config.window_size
        glimpses = torch.sigmoid(self.decode(z_what)).unflatten(-1, (channels, size, size))
        return self.windows(z_where).paste(glimpses, height, width)

    def sample(self, n: int, generator: torch.Generator, count: Tensor | None = None) -> Tensor:
        """Draw ``n`` images from the model, without pixel noise.

        Args:
            n: How many.
            generator: Where the randomness comes from.
            count: Whole numbers ``[n]``, how many objects each image has; drawn from p(N) if not given
                (nearly always 0 with the default prior, which is a penalty rather than a belief).

        Returns:
            float ``[n, H, W, C]`` in [0, 1].
        """
        k = self.config.max_objects
        if count is None:
            weights = geometric_prior(k, self.config.count_ratio).probs.to(generator.device)
            count = torch.multinomial(weights, n, replacement=True, generator=generator)
        with torch.no_grad():
            noise = self._noise(n, generator)
            objects = self.render(*noise.split([WHERE, self.config.what_size], dim=-1))
            canvas = (objects * self._first(count.to(self.device))).sum(1).clamp(0, 1)
        return canvas.movedim(1, -1)

    # --- learning and answering -----------------------------------------------------------------------

    def loss(self, images: Tensor, generator: torch.Generator) -> Loss:
        """Return the negative ELBO of uint8 ``images [B, H, W, C]`` in nats, term by term."""
        return self.negative_elbo(self.as_float(images), self._noise(len(images), generator))

    def negative_elbo(self, images: Tensor, noise: Tensor) -> Loss:
        """Return the negative ELBO, exact over N and with one sample of z.

        ``ELBO = sum_n q(n) log p(x | n, z) - KL(q(N) || p(N)) - sum_t P(N >= t) KL_t``: object t costs its
        KL only where it exists. Each KL is analytic.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B, K, 3 + what_size]``.
        """
        q = self.infer(images, noise)
        objects = self.render(q.z_where, q.z_what)
        log_likelihood = self.log_likelihoods(images, objects)  # [B, K + 1]
        exists = at_least(q.count)  # [B, K]
        return Loss(
            {
                "negative_log_likelihood": -(q.count.probs * log_likelihood).sum(-1),
                "kl_count": kl_divergence(q.count, self.prior_count(exists)),
                "kl_where": (exists * kl_to_standard_normal(q.where)).sum(-1),
                "kl_what": (exists * kl_to_standard_normal(q.what)).sum(-1),
            }
        )

    def log_likelihoods(self, images: Tensor, objects: Tensor) -> Tensor:
        """Return log p(x | the first n objects) for n = 0..K in nats (a density): ``[B, K + 1]``.

        Args:
            images: ``[B, C, H, W]``.
            objects: ``[B, K, C, H, W]``, each alone on its canvas.
        """
        sd = self.config.likelihood_sd
        image = images.flatten(1)  # [B, P]
        canvases = list(accumulate(objects.flatten(2).unbind(1), initial=torch.zeros_like(image)))
        errors = [mse_loss(canvas, image, reduction="none").sum(-1) for canvas in canvases]
        constant = image.shape[-1] * math.log(sd * math.sqrt(2 * math.pi))
        return torch.stack(errors, dim=-1) * (-0.5 / sd**2) - constant

    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer from the posterior means; the ELBO is that of one sample, keyed by the image."""
        x = self.as_float(images)
        shape = (self.config.max_objects, WHERE + self.config.what_size)
        noise = noise_of(images, shape, like=x)
        q = self.infer(x, torch.zeros_like(noise))
        count, presence = presence_of(q.count)
        objects = self.render(q.z_where, q.z_what) * self._first(count)  # [B, K, C, H, W]
        return Prediction(
            presence=presence,
            count=count,
            masks=self._masks(objects),
            background_slots=(0,),
            boxes=self.windows(q.z_where).boxes(),
            reconstruction=objects.sum(1).clamp(0, 1).movedim(1, -1),
            log_likelihood=-self.negative_elbo(x, noise).per_image,
            likelihood_kind="elbo",
        )

    def _masks(self, objects: Tensor) -> Tensor:
        """Share each pixel among the background and the objects by how much grey each paints.

        The background paints ``mask_level`` everywhere, so that an object owns the pixels that it makes
        brighter than that: ``[B, 1 + K, H, W]``, the background first.
        """
        paint = objects.mean(2)  # [B, K, H, W]
        paint = torch.cat([torch.full_like(paint[:, :1], self.config.mask_level), paint], dim=1)
        return paint / paint.sum(1, keepdim=True)

    def _first(self, count: Tensor) -> Tensor:
        """Return 1 for the first ``count`` objects, else 0, to multiply `render`'s answer with."""
        slots = torch.arange(self.config.max_objects, device=count.device)
        return (slots < count[:, None])[:, :, None, None, None].to(next(self.parameters()).dtype)

    def _noise(self, n: int, generator: torch.Generator) -> Tensor:
        shape = (n, self.config.max_objects, WHERE + self.config.what_size)
        dtype = next(self.parameters()).dtype
        return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype).to(self.device)


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the LSTM's next (hidden, cell), each ``[B, D]``, from its gates ``[B, 4 D]`` (i, f, o, new)."""
    size = cell.shape[-1]
    gates, new = gates.split([3 * size, size], dim=-1)
    admit, keep, show = torch.sigmoid(gates).chunk(3, dim=-1)
    cell = keep * cell + admit * torch.tanh(new)
    return show * torch.tanh(cell), cell
