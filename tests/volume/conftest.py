"""What the tests of this folder share: an undisturbed run in the tests' own Spark, the reference of all others."""

import pytest
import runs
import walk


@pytest.fixture(scope="session")
def walk_here(walk_notebook):
    """Run the notebook in the tests' own Spark: walk_here(pictures, output, until, **parameters) returns its Tables."""

    def walk_undisturbed(pictures, output, until=walk.FEATURES, **parameters):
        walk_notebook(runs.list_parameters(pictures, output, **parameters), until)
        return runs.read_tables(output, pictures)

    return walk_undisturbed


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of pictures, and of files that are none, which no test changes."""
    folder = tmp_path_factory.mktemp("pictures")
    assert runs.draw_pictures(folder) == sum(path.name[0] != "_" for path in folder.glob("*/*")) - 1  # one is empty
    return folder


@pytest.fixture(scope="session")
def undisturbed(walk_here, pictures, tmp_path_factory):
    """What a run on them leaves that nothing disturbs."""
    return walk_here(pictures, tmp_path_factory.mktemp("undisturbed"))
