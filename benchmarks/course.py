"""Contender 1, the course: pictures to features to PCA in the way that its public notebooks go about it.

Usage: python course.py TASK, a JSON object with pictures, output, network, cores, memory, components, partitions

What is theirs: the steps and their order, one model a task, keras.predict, Arrow batches of 1,024 rows, 20
partitions. What is not: the backbone, the same for every contender, so that only the way differs; as many
cores as the others and as much memory for Java; PCA fitted once, where they fit it two or three times, and on
features that are centred but not divided by their deviation. Nothing of fruits is imported, for it would set
TensorFlow up: here, in the driver and in the workers, TensorFlow has its defaults.
"""

import json
import sys
from io import BytesIO

from measures import Measures

measures = Measures()
with measures.step("start"):
    import keras
    import numpy as np
    import pandas as pd
    from PIL import Image
    from pyspark.ml.feature import PCA, StandardScaler
    from pyspark.ml.linalg import Vectors, VectorUDT
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import PandasUDFType, element_at, pandas_udf, split, udf
    from tensorflow.python.util import _pywrap_util_port


def start_spark(cores, memory):
    """Start Spark on some cores, with some MiB for Java."""
    builder = SparkSession.builder.master(f"local[{cores}]").appName("course")
    spark = builder.config("spark.driver.memory", f"{memory}m").getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1024")
    return spark


def make_featurizer(architecture, weights):
    """Make the pandas UDF: one model a task, one keras.predict a batch. weights: broadcast list of arrays."""

    def build_model():
        model = keras.models.model_from_json(architecture)
        model.set_weights(weights.value)
        return model

    def decode(content):
        return np.asarray(Image.open(BytesIO(content)).convert("RGB").resize((224, 224)), dtype=np.float32)

    def featurize_series(model, contents):
        predictions = model.predict(np.stack(contents.map(decode)), verbose=0)
        return pd.Series([prediction.flatten() for prediction in predictions])

    @pandas_udf("array<float>", PandasUDFType.SCALAR_ITER)
    def featurize(batches):
        model = build_model()
        for contents in batches:
            yield featurize_series(model, contents)

    return featurize


def write_features(spark, task):
    """Read the pictures, label them by their folder, featurize them and write parquet."""
    model = keras.models.load_model(task["network"] + "/network.keras")
    weights = spark.sparkContext.broadcast(model.get_weights())
    reader = (
        spark.read.format("binaryFile")
        .option("pathGlobFilter", "*.jpg")
        .option("recursiveFileLookup", "true")
    )
    pictures = reader.load(task["pictures"]).withColumn("label", element_at(split("path", "/"), -2))
    featurize = make_featurizer(model.to_json(), weights)
    features = pictures.repartition(task["partitions"]).select("path", "label", featurize("content").alias("features"))
    features.write.mode("overwrite").parquet(task["output"] + "/features")


def write_projection(spark, task):
    """Read the features back, centre them, fit PCA, project, write parquet. Returns the variance ratios."""
    to_vector = udf(lambda values: Vectors.dense(values), VectorUDT())
    features = spark.read.parquet(task["output"] + "/features")
    vectors = features.select("path", "label", to_vector("features").alias("vector"))
    # They also divide by the deviation; here not, so that the components are those of the project.
    scaler = StandardScaler(inputCol="vector", outputCol="scaled", withMean=True, withStd=False).fit(vectors)
    scaled = scaler.transform(vectors)
    pca = PCA(k=task["components"], inputCol="scaled", outputCol="pca").fit(scaled)
    pca.transform(scaled).select("path", "label", "pca").write.mode("overwrite").parquet(
        task["output"] + "/pca"
    )
    return pca.explainedVariance.toArray().tolist()


def main(task):
    """Run the course's flow from end to end."""
    with measures.step("start"):
        spark = start_spark(task["cores"], task["memory"])
    with measures.step("features"):
        write_features(spark, task)
    with measures.step("pca"):
        measures.note(variance_ratio=write_projection(spark, task))
    measures.note(onednn=_pywrap_util_port.IsMklEnabled())
    measures.save(task["output"])
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
