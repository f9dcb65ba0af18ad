from .attribution import attribution as attribution
from .blocks import gain_curve as gain_curve
from .blocks import split as split
from .files import save as save
from .headline import headline as headline
from .interventions import ablation_heatmap as ablation_heatmap
from .interventions import theta_dose as theta_dose
from .massive import (
    ClassNorms as ClassNorms,
)
from .massive import (
    class_norms as class_norms,
)
from .massive import (
    massive_lifecycle as massive_lifecycle,
)
from .notebook import notebook_figure as notebook_figure
from .position import gain_by_position as gain_by_position
from .position import position_quartiles as position_quartiles
from .training import training_curves as training_curves
from .training import training_figure as training_figure
from .verdict_forest import verdict_forest as verdict_forest
from .weights import rope_wavelengths as rope_wavelengths
from .weights import unembed_spectrum as unembed_spectrum
