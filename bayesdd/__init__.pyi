from . import baselines as baselines
from . import dbn as dbn
from . import inference as inference
from . import networks as networks
from . import objectives as objectives
from . import pinn as pinn
from .calibration import Calibration as Calibration
from .calibration import calibrate as calibrate
from .certificate import certify as certify
from .data import Certificate as Certificate
from .data import CertificateWarning as CertificateWarning
from .data import DataNote as DataNote
from .data import Distilled as Distilled
from .data import PredictiveCertificate as PredictiveCertificate
from .data import on_disk as on_disk
from .data import union as union
from .distillation import distill as distill
from .numerics import Refusal as Refusal
from .posterior import ConvergenceWarning as ConvergenceWarning
from .posterior import log_likelihood as log_likelihood
from .posterior import predict as predict
from .posterior import sample as sample
from .posterior import weighted as weighted
from .task import Task as Task
from .task import censored as censored
from .task import kinds as kinds

__version__: str
