"""The parity recipe's batches as a data set from outside the package."""

import numpy as np
import parity_recipe as recipe

from srkit.data import Sample
from srkit.registry import DATASETS


@DATASETS.register()
class RecipeBatches:
    """Sample n is place n % BATCH of batch n // BATCH + 1; intensities from 0 to 1."""

    def __len__(self) -> int:
        return recipe.ITERATIONS * recipe.BATCH

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        number, place = divmod(index, recipe.BATCH)
        lq, gt = (half[place].transpose(1, 2, 0) for half in recipe.batch(number + 1))
        return Sample({"lq": lq, "gt": gt}, f"sample_{index}", {}, 1.0)
