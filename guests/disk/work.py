"""Work for a fresh system: big integers, floating point, hashing, text. The same everywhere."""
import hashlib
import math
import re
import zlib

factorial = math.factorial(1000)
print("R3:digits:%d:%s" % (len(str(factorial)), hashlib.sha256(str(factorial).encode()).hexdigest()[:16]))
print("R3:zeta:%.12f" % math.fsum(1 / (n * n) for n in range(1, 200000)))
text = " ".join(str(pow(3, n, 65537)) for n in range(20000))
packed = zlib.compress(text.encode(), 9)
assert zlib.decompress(packed).decode() == text
print("R3:text:%d:%08x" % (len(re.findall(r"\b1\d*7\b", text)), zlib.crc32(text.encode())))
