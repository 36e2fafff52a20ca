<<<<<<< HEAD
from ._grouped import grouped as grouped
=======
from .accuracy import Accuracy as Accuracy
from .accuracy import Residual as Residual
>>>>>>> equations6
from .certificate import Certificate as Certificate
from .certificate import CertificateWarning as CertificateWarning
from .certificate import PredictiveCertificate as PredictiveCertificate
from .columns import DataNote as DataNote
from .disk import on_disk as on_disk
from .distilled import Distilled as Distilled
from .distilled import union as union
from .rows import Rows as Rows
