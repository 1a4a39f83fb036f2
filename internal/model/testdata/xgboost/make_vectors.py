#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes classes.* and odds.*: models of Debian's xgboost 1.7.4 on synthetic rows,
with the margins and contributions that it computes itself."""
import json

import numpy as np
import xgboost as xgb

NAMES = ["pkt_rate", "new_source_share", "syn_share", "port_entropy", "ttl_top", "size_mean"]


def rows(n, seed):
    """n rows of six features, some unknown, and labels of four classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(NAMES)))
    x[:, 2] = np.round(x[:, 2], 1)
    x[:, 4] = rng.integers(0, 5, n)
    score = np.stack([x[:, 0] + x[:, 2], x[:, 1] * x[:, 3], np.sin(2 * x[:, 5]) + 0.3 * x[:, 4], -x[:, 0] * x[:, 2]], axis=1)
    y = np.argmax(score + rng.normal(scale=0.4, size=score.shape), axis=1)
    x[rng.random(x.shape) < 0.08] = np.nan
    return x.astype(np.float32), y


def save(path, table):
    np.savetxt(path, table, delimiter=",", fmt="%.9g")


def make(name, params, rounds, train, test, labels_of):
    x, y = train
    data = xgb.DMatrix(x, labels_of(y), feature_names=NAMES)
    booster = xgb.train(params, data, num_boost_round=rounds)
    booster.save_model(name + ".json")
    booster.save_model(name + ".ubj")
    tx, ty = test
    held = xgb.DMatrix(tx, labels_of(ty), feature_names=NAMES)
    save(name + "_margin.csv", booster.predict(held, output_margin=True).reshape(len(tx), -1))
    save(name + "_contrib.csv", booster.predict(held.slice(range(40)), pred_contribs=True).reshape(40, -1))
    losses = {"train": booster.eval(data), "test": booster.eval(held)}
    return {"params": params, "rounds": rounds,
            "loss": {k: float(v.rsplit(":", 1)[1]) for k, v in losses.items()}}


train, test = rows(1500, 1), rows(300, 2)
save("classes_train.csv", np.column_stack(train))
save("classes_test.csv", np.column_stack(test))
common = {"nthread": 1, "seed": 7, "eta": 0.3, "reg_lambda": 2.0}
info = {
    "classes": make("classes", {**common, "objective": "multi:softprob", "num_class": 4, "max_depth": 4,
                                "gamma": 1.5, "min_child_weight": 3, "tree_method": "exact",
                                "eval_metric": "mlogloss"}, 8, train, test, lambda y: y),
    "odds": make("odds", {**common, "objective": "binary:logistic", "max_depth": 3, "base_score": 0.17,
                          "gamma": 0.5, "tree_method": "hist", "eval_metric": "logloss"},
                 12, train, test, lambda y: (y == 2).astype(int)),
}
with open("classes_odds.json", "w") as f:
    json.dump(info, f, indent=1)
    f.write("\n")
