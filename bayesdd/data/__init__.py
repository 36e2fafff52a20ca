"""Tables: columns, file formats, rows in memory and on disk; the nouns Distilled and its two certificates."""

from bayesdd.data.certificate import Certificate as Certificate
from bayesdd.data.certificate import CertificateWarning as CertificateWarning
from bayesdd.data.certificate import PredictiveCertificate as PredictiveCertificate
from bayesdd.data.disk import on_disk as on_disk
from bayesdd.data.distilled import Distilled as Distilled
from bayesdd.data.distilled import union as union
from bayesdd.data.rows import Rows as Rows
from bayesdd.numerics.refusal import Refusal as Refusal
