"""A folder with a CSV file of labels, in its three forms, and what can be wrong with it."""

import warnings

import numpy as np
import pytest
from PIL import Image

from piaa_utils.worlds import LabelledFolder, first
from piaa_utils.worlds.folder import read_table

NAMES = ("a.jpg", "sub/b.jpg", "c.png")
FORMS = {
    "names": "file,labels\na.jpg,cat; dog\nsub/b.jpg,\nc.png,cow\n",
    "one row a label": "file,label\na.jpg,cat\nsub/b.jpg,\na.jpg,dog\nc.png,cow\na.jpg,cat\n",
    "columns": "file,cat,cow,dog\na.jpg,1,0,1\nsub/b.jpg,0,0,0\nc.png,0,1,0\n",
    "semicolons": 'file;labels\na.jpg;"cat;dog"\nsub/b.jpg;\nc.png;cow\n',
    "tabs": "labels\tfile\ncat;dog\ta.jpg\n\tsub/b.jpg\ncow\tc.png\n",
    "lists": "path,tags\na.jpg,\"['cat', 'dog']\"\nsub/b.jpg,[]\nc.png,['cow']\n",
    "no header": "a.jpg,cat;dog\nsub/b.jpg,\nc.png,cow\n",
    "unknown name of column": "which,what\na.jpg,cat;dog\nsub/b.jpg,\nc.png,cow\n",
    "windows": "\ufefffile,labels\r\na.jpg,cat;dog\r\nsub\\b.jpg,\r\n.\\c.png,cow\r\n\r\n",
    "a class called label": "f,cat,cow,dog,label\na.jpg,1,0,1,0\nsub/b.jpg,0,0,0,0\nc.png,0,1,0,0",
}


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4), (9, 9, 9)).save(tmp_path / name)
    return tmp_path


def write(folder, text):
    (folder / "labels.csv").write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_mean_the_same(folder, form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = LabelledFolder(write(folder, FORMS[form]))
    assert data.ids == list(NAMES) and data.paths == [folder / name for name in NAMES]
    assert data.class_names[:3] == ("cat", "cow", "dog")
    assert data.labels[:, :3].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert data.labels.dtype == np.int8 and data.labels.max() == 1
    assert data[1].size == (5, 4) and len(data) == 3 and not data.difficult.any()


@pytest.mark.parametrize("form", ["names", "columns"])
def test_own_class_list_gives_the_order(folder, form):
    data = LabelledFolder(write(folder, FORMS[form]), class_names=["dog", "cow", "cat"])
    assert data.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_fewer_columns_than_there_are_and_none_of_a_class(folder):
    write(folder, FORMS["columns"])
    assert LabelledFolder(folder, class_names=["dog"]).labels.tolist() == [[1], [0], [0]]
    with pytest.raises(ValueError, match="no column for the class 'dogg'"):
        LabelledFolder(folder, class_names=["dogg"])


def test_columns_without_a_header(folder):
    write(folder, FORMS["columns"].partition("\n")[2])
    data = LabelledFolder(folder, class_names=["x", "y", "z"])
    assert data.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    for names in (None, ["x", "y"]):
        with pytest.raises(ValueError, match="3 columns of 0 and 1 but no header"):
            LabelledFolder(folder, class_names=names)


def test_one_column_of_flags_is_a_class(folder):
    data = LabelledFolder(write(folder, "file,cat\na.jpg,1\nsub/b.jpg,0\nc.png,0\n"))
    assert data.class_names == ("cat",) and data.labels.tolist() == [[1], [0], [0]]


def test_labels_elsewhere_and_a_split_column(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("other") / "mine.csv"
    file.write_text("file,labels,split\na.jpg,cat,Train\nsub/b.jpg,,test\nc.png,dog,test\n")
    assert LabelledFolder(folder, file).labels.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert read_table(file).splits == ["train", "test", "test"]


def test_rows_without_an_image_and_images_without_a_row(folder):
    write(folder, "file,labels\na.jpg,cat\ngone.jpg,cat;dog\n")
    with (
        pytest.warns(UserWarning, match="1 of 2 images are not there: gone.jpg"),
        pytest.warns(UserWarning, match=r"2 images .* no row .*: c\.png, sub/b\.jpg\. Add rows"),
    ):
        data = LabelledFolder(folder)
    assert data.ids == ["a.jpg"] and data.labels.tolist() == [[1, 0]]
    assert data.missing == ["gone.jpg"] and data.unlisted == ["c.png", "sub/b.jpg"]


def test_no_row_has_an_image(folder):
    with pytest.raises(FileNotFoundError, match=r"2 of 2 images.*x, y\. Looked in .*suffix"):
        LabelledFolder(write(folder, "file,labels\nx,cat\ny,dog\n"))


def test_missing_folder_and_file(folder):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        LabelledFolder(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no file .*labels\.csv.*file,labels"):
        LabelledFolder(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no rows"),
        ("file,labels\n", "there are no rows"),
        ("file,labels\na.jpg,cat,dog\n", "line 2: 3 columns where 2 were expected.*double quotes"),
        ('file,labels\na.jpg,"cat,dog"\n', "line 2: 'cat,dog' may mean several names"),
        ("file,labels\n,cat\n", "line 2: there is no file name"),
        ("file,labels\na.jpg,['cat'\n", r"line 2: .* is no list of names"),
        ("file,labels\na.jpg,\n", "no row has a label"),
        ("file,cat,dog\na.jpg,1,yes\n", r"only 0 and 1 .*\(file, cat, dog\)"),
        ("file,cat,dog\na.jpg,1,-1\n", "only 0 and 1"),
        (
            'file,labels\na.jpg,cat\nc.png,"' + "x\n" * 70_000,
            r"labels\.csv, line 3: .*double quotes",
        ),
        ('file,labels "' + "x" * 140_000 + '"\n', r"labels\.csv, line 1: .*cannot be read"),
        ("file,cat,dog\na.jpg,1,0\na.jpg,0,0\n", "line 3: 'a.jpg' is listed twice"),
        ("file,cat,cat\na.jpg,1,0\n", "the same name twice: 'cat' and 'cat'"),
        ("file\na.jpg\n", "neither a column called 'labels'"),
    ],
)
def test_files_that_cannot_be_understood(folder, text, message):
    with pytest.raises(ValueError, match=message):
        LabelledFolder(write(folder, text))


def test_unknown_class_is_named_with_its_line(folder):
    write(folder, "file,labels\na.jpg,cat\nc.png,dogg\n")
    with pytest.raises(ValueError, match=r"labels\.csv, line 3: 'dogg' is none of the 2 classes"):
        LabelledFolder(folder, class_names=["cat", "dog"])


def test_names_with_commas_are_allowed_in_a_class_list(folder):
    write(folder, 'file,labels\na.jpg,"cat, wild"\nsub/b.jpg,\nc.png,\n')
    assert LabelledFolder(folder, class_names=["cat, wild"]).labels.sum() == 1


def test_another_encoding(folder):
    (folder / "labels.csv").write_bytes("file,labels\na.jpg,é\n".encode("cp1252"))
    with pytest.raises(ValueError, match="not in UTF-8"):
        LabelledFolder(folder)


@pytest.mark.parametrize(
    "cell",
    ["['cat' 'dog']", "['cat'\n 'dog']", "('cat', 'dog')", "{'cat', 'dog'}", '[""cat"" ""dog""]'],
)
def test_lists_as_numpy_and_python_print_them(folder, cell):
    data = LabelledFolder(write(folder, f'file,labels\na.jpg,"{cell}"\nsub/b.jpg,[]\nc.png,\n'))
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [[1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    "cell", ["[cat dog]", "['cat' ... 'dog']", "[1. 0.]", "[b'cat']", "['cat'"]
)
def test_lists_that_are_not_of_names(folder, cell):
    write(folder, f'file,labels\na.jpg,cat\nc.png,"{cell}"\n')
    with pytest.raises(ValueError, match=r"labels\.csv, line 3: .* is no list of names"):
        LabelledFolder(folder, class_names=["cat", "dog"])


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1.0", "0.0"), ("TRUE", "0")])
def test_flags_as_pandas_prints_them(folder, yes, no):
    rows = f"a.jpg,{yes},{no}\nsub/b.jpg,{no},{no}\nc.png,{yes},{yes}\n"
    data = LabelledFolder(write(folder, f"file,cat,dog\n{rows}"))
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [[1, 0], [0, 0], [1, 1]]
    one = LabelledFolder(write(folder, f"file,cat\na.jpg,{yes}\nsub/b.jpg,{no}\nc.png,{yes}\n"))
    assert one.class_names == ("cat",) and one.labels.tolist() == [[1], [0], [1]]


@pytest.mark.parametrize("cell", ["-1", "1", "True", "0.5", "3", "nan", "None", "<NA>"])
def test_a_cell_with_two_readings_is_refused_unless_the_classes_are_given(folder, cell):
    write(folder, f"file,labels\na.jpg,cat\nsub/b.jpg,{cell}\nc.png,\n")
    with pytest.raises(ValueError, match=rf"line 3: '{cell}' may mean .*class_names"):
        LabelledFolder(folder)
    assert LabelledFolder(folder, class_names=["cat", cell]).labels[1].tolist() == [0, 1]


def test_files_and_names_however_they_are_spelt(folder):
    data = LabelledFolder(
        write(folder, "file,label\na.jpg,cat\n./a.jpg,dog\nsub//b.jpg,\nc.png,\n")
    )
    assert data.ids == list(NAMES) and data.labels.tolist() == [[1, 1], [0, 0], [0, 0]]
    with pytest.raises(ValueError, match="line 3: 'a.jpg' is listed twice"):
        LabelledFolder(write(folder, "file,cat,dog\na.jpg,1,0\n.\\a.jpg,0,0\n"))
    with pytest.raises(ValueError, match=r"labels\.csv holds the same name twice: 'Cat' and 'cat'"):
        LabelledFolder(write(folder, "file,labels\na.jpg,cat\nc.png,Cat\n"))
    with pytest.raises(ValueError, match=r"labels\.csv holds the same name twice: 'cat' and 'Cat'"):
        LabelledFolder(write(folder, "file,cat,Cat\na.jpg,1,0\n"), class_names=["cat"])


def test_splits_of_a_folder(folder):
    rows = "a.jpg,cat,Train\nsub/b.jpg,,val\nc.png,dog,val\n"
    write(folder, f"file,labels,split\n{rows}")
    ids = {split: LabelledFolder(folder, split=split).ids for split in ("learn", "val", "test")}
    assert ids == {
        "learn": ["a.jpg"],
        "val": ["sub/b.jpg", "c.png"],
        "test": ["sub/b.jpg", "c.png"],
    }
    write(folder, f"file,labels,split\n{rows}a.jpg,dog,val\n")
    with pytest.raises(ValueError, match="line 5: 'a.jpg' is listed twice"):
        LabelledFolder(folder)
    write(folder, "file,labels,split\na.jpg,cat,other\n")
    with pytest.raises(ValueError, match="no row has the split 'test', only other"):
        LabelledFolder(folder, split="test")


def test_an_empty_path_is_not_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(write(folder, FORMS["names"]))
    assert len(LabelledFolder(".")) == 3
    with pytest.raises(FileNotFoundError, match="no folder"):
        LabelledFolder("")


def test_a_cut_takes_images_and_labels_alike(folder):
    data = first(LabelledFolder(write(folder, FORMS["names"])), 2)
    assert len(data) == len(data.paths) == len(data.labels) == len(data.difficult) == 2
