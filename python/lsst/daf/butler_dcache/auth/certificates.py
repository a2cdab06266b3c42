"""Client certificates and proxies: whether they can be used, and until when.

What TLS presents is read from the same files by `..transport.tls`; here they are judged before that, so that
a certificate that is over costs no connection, and its renewal is noticed. The library that reads them takes
70 ms to import, and most jobs have a token: it is imported when it is needed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ..errors import hides_locals
from .credential import Credential
from .secret_file import Mark, SecretFile

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ("CertificateSource",)


class CertificateSource:
    """A certificate and its key, or a proxy that holds both, in files that somebody else renews.

    Parameters
    ----------
    certificate : `str`
        File with the certificate and those between it and its authority.
    key : `str`
        File with the key, maybe the same.
    origin : `str`
        Which setting or variable named them.
    unasked : `bool`, optional
        Whether nobody named them, see `~.secret_file.SecretFile`.

    Notes
    -----
    The files are looked at for each request (two ``stat``) and read when they have changed. Thread-safe.
    """

    def __init__(self, certificate: str, key: str, origin: str, *, unasked: bool = False) -> None:
        self._certificate = SecretFile(certificate, "certificate", origin, unasked=unasked)
        self._key = SecretFile(key, "certificate's key", origin, unasked=unasked)
        self._known: tuple[tuple[Mark, Mark], Credential] | None = None

    def current(self) -> Credential:
        """Return the credential that the files hold now.

        Returns
        -------
        credential : `~.credential.Credential`
            Of kind ``certificate``; its life is that of the shortest-lived certificate of the chain.

        Raises
        ------
        CredentialError
            If a file is missing or unusable, others may read the key, it is encrypted or belongs to another
            certificate.
        """
        marks = self._certificate.mark(), self._key.mark()
        known = self._known
        if known is not None and known[0] == marks:
            return known[1]
        certificate_mark, chain = self._read_chain()
        key_mark = self._check_key(chain[0])
        credential = Credential(
            "certificate",
            None,
            min(certificate.not_valid_after_utc for certificate in chain),
            self._certificate.origin,
            not_before=max(certificate.not_valid_before_utc for certificate in chain),
            remedy=f"renew {self._certificate.path}, for instance with voms-proxy-init",
            mark=hashlib.sha256(b"".join(c.tbs_certificate_bytes for c in chain)).hexdigest(),
        )
        if known is None:
            credential.warn_if_short()
        self._known = (certificate_mark, key_mark), credential
        return credential

    @hides_locals
    def _read_chain(self) -> tuple[Mark, list[x509.Certificate]]:
        from cryptography import x509

        mark, content = self._certificate.read(private=self._certificate.path == self._key.path)
        try:
            chain = x509.load_pem_x509_certificates(content)
            for certificate in chain:
                _ = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        except ValueError:
            raise self._certificate.error("holds no certificate in PEM form") from None
        return mark, chain

    @hides_locals
    def _check_key(self, certificate: x509.Certificate) -> Mark:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

        mark, content = self._key.read()
        try:
            key = load_pem_private_key(content, None)
            own = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except TypeError:
            raise self._key.error(
                "is encrypted", "make a proxy, or a copy without a pass phrase (openssl pkey), mode 0600"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise self._key.error("holds no private key in PEM form") from None
        try:
            theirs = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm):
            raise self._certificate.error("has a key of an unknown kind") from None
        if own != theirs:
            raise self._key.error(f"does not belong to the certificate {self._certificate.path}")
        return mark
